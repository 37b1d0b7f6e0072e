import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    exclude: ["test/oracle/**", "test/browser/**", "node_modules/**"],
    pool: "forks",
    globalSetup: "test/support/build-cli.ts",
    testTimeout: 60_000,
  },
});
