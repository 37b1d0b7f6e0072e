import { defineConfig } from "vitest/config";

/** Tests that drive a browser; `npm run test:browser` finds it. They use the built package, in dist/. */
export default defineConfig({
  test: { include: ["test/browser/**/*.test.ts"], pool: "forks", testTimeout: 60_000, hookTimeout: 60_000 },
});
