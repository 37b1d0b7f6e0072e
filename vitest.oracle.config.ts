import { defineConfig } from "vitest/config";

/** Tests that ask a live Python; `npm run test:oracle` finds it and makes the cases first. */
export default defineConfig({
  test: {
    include: ["test/oracle/**/*.test.ts"],
    pool: "forks",
    globalSetup: "test/support/build-cli.ts",
    fileParallelism: false,
    testTimeout: 300_000,
    hookTimeout: 300_000,
  },
});
