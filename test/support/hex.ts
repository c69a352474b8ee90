/** Bytes as tests write them down: hexadecimal digits in groups of any size. */

export function fromHex(hex: string): Buffer {
  const digits = hex.replaceAll(/\s+/g, '')
  const bytes = Buffer.from(digits, 'hex')
  if (bytes.length * 2 !== digits.length) throw new Error(`not hexadecimal: ${hex}`)
  return bytes
}

export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex')
}
