/** A held build as a file for another server, without what that has already: source/bundle.ts reads it. */
import { createHash } from 'node:crypto'
import { StoreCorrupt } from '../errors.ts'
import { type ByteString, byteString } from '../lib/bytes.ts'
import { Pacer } from '../lib/pacer.ts'
import { BUNDLE_MAGIC, type BundleHead } from '../source/bundle.ts'
import type { Store } from '../store/store.ts'

const PIECE_BYTES = 1 << 20

/** What stands in front of the compressed part. */
export async function bundleStart(store: Store, id: string, have: readonly string[]): Promise<Buffer> {
  const info = await store.info(id)
  const head: BundleHead = {
    id,
    manifestBytes: (await store.manifestBytes(id)).length,
    contentsBytes: await store.contentsSize(id),
    contentsSha256: info.contentsSha256 ?? '',
    url: info.url,
    vouchers: [...(info.vouchers ?? [])],
    have: [...have],
  }
  return Buffer.from(`${BUNDLE_MAGIC}\n${JSON.stringify(head)}\n`)
}

/**
 * What is compressed. All builds named are leased by the caller.
 * @throws StoreCorrupt for a blob that has rotted, which `suspect` is told of.
 */
export async function* bundleBody(
  store: Store,
  id: string,
  have: readonly string[],
  { signal, suspect }: { signal: AbortSignal; suspect(digest: Uint8Array): void },
): AsyncGenerator<Uint8Array, void, undefined> {
  const pacer = new Pacer(signal)
  const held = new Set<ByteString>()
  for (const other of have) {
    const manifest = await store.manifest(other)
    for (let b = 0; b < manifest.blobCount; b++) {
      if (pacer.due) await pacer.rest()
      held.add(byteString(manifest.blobDigest(b)))
    }
  }
  yield await store.manifestBytes(id)
  yield await store.contents(id)
  const manifest = await store.manifest(id)
  for (let b = 0; b < manifest.blobCount; b++) {
    if (pacer.due) await pacer.rest()
    const [digest, size] = [manifest.blobDigest(b), manifest.blobSize(b)]
    if (size === 0 || held.has(byteString(digest))) continue
    const head = Buffer.alloc(40)
    head.set(digest)
    head.writeBigUInt64LE(BigInt(size), 32)
    yield head
    const hash = createHash('sha256')
    for (let at = 0; at < size; at += PIECE_BYTES) {
      signal.throwIfAborted()
      const piece = Buffer.allocUnsafe(Math.min(PIECE_BYTES, size - at))
      await store.copyBlob(digest, at, [piece])
      hash.update(piece)
      yield piece
    }
    if (hash.digest().equals(digest)) continue
    suspect(digest)
    throw new StoreCorrupt(`a file of build ${id} has rotted: nothing was exported`, {
      hint: `Run \`upserv verify ${id} --repair\`, then export it again.`,
    })
  }
  yield Buffer.alloc(32)
}
