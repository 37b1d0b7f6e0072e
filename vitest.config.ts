import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    exclude: ["test/oracle/**", "test/browser/**", "node_modules/**"],
    pool: "forks",
    // What a shell has set for Python must not decide how tests of the Hub end.
    env: { HF_HUB_OFFLINE: "", TRANSFORMERS_OFFLINE: "" },
    globalSetup: "test/support/build-cli.ts",
    // Generous, for machines that do other things as well: what hangs must fail, what is slow must not.
    testTimeout: 240_000,
    hookTimeout: 240_000,
  },
});
