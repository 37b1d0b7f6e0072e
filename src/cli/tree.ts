import { type Inspection, type InspectionOptions, readModuleTree as read } from "../inspection/index.ts";

/** As the library's `readModuleTree`, with warnings as texts besides. */
export async function readModuleTree(
  location: string,
  options?: InspectionOptions,
): Promise<Omit<Inspection, "warnings"> & { warnings: string[]; notices: Inspection["warnings"] }> {
  const { warnings: notices, ...rest } = await read(location, options);
  return { ...rest, warnings: notices.map(({ message }) => message), notices };
}
