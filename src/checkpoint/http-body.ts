/**
 * The body of a response, of which at most `length` bytes are held in memory. A body that goes on is
 * `"too-long"`, or with `more` simply cut; either way the transfer ends.
 */
export async function readBody(
  response: Response,
  length: number,
  { more }: { more: boolean },
): Promise<Uint8Array<ArrayBuffer> | "too-long"> {
  if (response.body === null) return new Uint8Array(0);
  const reader = response.body.getReader();
  const chunks: Uint8Array[] = [];
  let received = 0;
  for (;;) {
    if (more && received >= length) break;
    const { done, value } = await reader.read();
    if (done) break;
    chunks.push(value);
    received += value.length;
    if (received > length) break;
  }
  if (received > length || more) await reader.cancel().catch(() => undefined);
  if (received > length && !more) return "too-long";
  return concatenate(chunks, Math.min(received, length));
}

function concatenate(chunks: readonly Uint8Array[], length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  let offset = 0;
  for (const chunk of chunks) {
    const part = chunk.subarray(0, length - offset);
    bytes.set(part, offset);
    offset += part.length;
  }
  return bytes;
}
