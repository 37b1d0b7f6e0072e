/** Version of the package; written into saved runs. A test compares it with package.json. */
export const version = "0.1.0";
