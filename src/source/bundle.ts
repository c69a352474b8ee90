/**
 * Source over bundle:, a file that `upserv export` wrote: a build as another server has it, with the blobs
 * that this one is thought to lack. Read once, from its first byte to its last, so it may come by a pipe.
 *
 *     upserv-export 1 LF
 *     a line of JSON (`bundleHead`)
 *     one zstd stream: the manifest, the file contents, and for each blob its SHA-256 (32 bytes), its size
 *     (u64, little-endian) and its bytes, in the order of their numbers in the manifest; then 32 zeros
 */
import { createHash } from 'node:crypto'
import { createReadStream, statSync } from 'node:fs'
import { pipeline, Readable } from 'node:stream'
import { pathToFileURL } from 'node:url'
import { createZstdDecompress } from 'node:zlib'
import { z } from 'zod'
import { SourceError } from '../errors.ts'
import { StreamReader } from '../lib/stream-reader.ts'
import type { BundleFile, Offer, WantedBlob } from './parent.ts'
import { MAX_MANIFEST_BYTES } from './parent-wire.ts'
import { pathOf, readFifo } from './pipe.ts'
import type { LocateOptions, SourceConfig } from './source.ts'

export const BUNDLE_MAGIC = 'upserv-export 1'
const MAX_HEAD = 64 << 10
const MAX_CONTENTS_BYTES = 1 << 30
const PIECE_BYTES = 1 << 20
const DIGEST_BYTES = 32

export const bundleHead = z.object({
  id: z.string().max(300),
  manifestBytes: z.int().positive().max(MAX_MANIFEST_BYTES),
  contentsBytes: z.int().nonnegative().max(MAX_CONTENTS_BYTES),
  contentsSha256: z.string().regex(/^[0-9a-f]{64}$/),
  url: z.string().max(4000),
  vouchers: z.array(z.string().max(1000)).max(50),
  /** Builds that the server it is for was said to have. */
  have: z.array(z.string().max(300)).max(1000),
})
export type BundleHead = z.infer<typeof bundleHead>

/** The head of a file whose first bytes these are; undefined when it is no bundle. */
export function parseBundleHead(start: Uint8Array): BundleHead | undefined {
  const [magic, line = ''] = new TextDecoder().decode(start.subarray(0, MAX_HEAD)).split('\n', 2)
  if (magic !== BUNDLE_MAGIC) return undefined
  try {
    return bundleHead.parse(JSON.parse(line))
  } catch {
    return undefined
  }
}

export class BundleSource {
  readonly kind = 'parent'
  readonly name: string
  readonly #path: string

  constructor({ name, url }: SourceConfig) {
    this.name = name
    this.#path = pathOf(url)
  }

  offers(): boolean {
    return true
  }

  async offer(_id: string, { signal }: LocateOptions): Promise<Offer> {
    const isFifo = statSync(this.#path).isFIFO()
    const file = isFifo ? await readFifo(this.#path, signal) : createReadStream(this.#path, { signal })
    const sha256 = createHash('sha256')
    let bytes = 0
    async function* counted(): AsyncGenerator<Uint8Array> {
      for await (const chunk of file as AsyncIterable<Uint8Array>) {
        bytes += chunk.length
        sha256.update(chunk)
        yield chunk
      }
    }
    const raw = new StreamReader(counted())
    const [magic, line] = [await raw.line(MAX_HEAD), await raw.line(MAX_HEAD)]
    const head = bundleHead.safeParse(parseJson(line ?? ''))
    if (magic !== BUNDLE_MAGIC || !head.success)
      throw new SourceError(`${this.#path} is no file that upserv has exported`)
    const decoder = createZstdDecompress()
    let fed = 0
    async function* packed(): AsyncGenerator<Uint8Array> {
      for await (const chunk of raw.rest()) {
        fed += chunk.length
        yield chunk
      }
    }
    pipeline(Readable.from(packed()), decoder, () => {}) // what fails shows where it is read
    const reader = new StreamReader(decoder as AsyncIterable<Uint8Array>)
    const more = async (count: number): Promise<Buffer | undefined> => {
      try {
        return await reader.bytes(count)
      } catch (cause) {
        signal.throwIfAborted()
        throw new SourceError(`${this.#path} is damaged: ${(cause as Error).message}`, { cause })
      }
    }
    const take = async (count: number): Promise<Buffer> => {
      const taken = await more(count)
      if (taken) return taken
      throw new SourceError(`${this.#path} ends early`, { hint: 'Copy it again from where it was exported.' })
    }
    const manifest = await take(head.data.manifestBytes)
    const contents = await take(head.data.contentsBytes)
    const { have, url, vouchers, contentsSha256 } = head.data
    let whole: BundleFile | undefined
    const end = async (): Promise<void> => {
      // Behind the zstd stream the decoder takes nothing.
      if ((await more(1)) || decoder.bytesWritten < fed)
        throw new SourceError(`${this.#path} is damaged: it goes on behind its end`)
      whole = {
        url: isFifo ? undefined : pathToFileURL(this.#path).href,
        sha256: sha256.digest('hex'),
      }
    }
    return {
      url,
      manifest,
      base: undefined,
      contentsSha256,
      vouchers: vouchers.map((voucher) => `${voucher} (says the export)`),
      get linkBytes() {
        return bytes
      },
      get file() {
        return whole
      },
      contents: async () => contents,
      blobs: (wanted) => this.#blobs(wanted, have, take, end),
    }
  }

  async *#blobs(
    wanted: readonly WantedBlob[],
    have: readonly string[],
    take: (count: number) => Promise<Buffer>,
    end: () => Promise<void>,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    let next = 0
    for (;;) {
      const digest = await take(DIGEST_BYTES)
      if (digest.every((byte) => byte === 0)) break
      const size = Number((await take(8)).readBigUInt64LE())
      const isWanted = wanted[next] !== undefined && digest.equals(wanted[next]!.digest)
      if (isWanted && size !== wanted[next]!.size)
        throw new SourceError(`${this.#path} is damaged: a file has another size`)
      for (let left = size; left > 0; ) {
        const piece = await take(Math.min(left, PIECE_BYTES))
        left -= piece.length
        if (isWanted) yield piece
      }
      if (isWanted) next++
    }
    if (next === wanted.length) return await end()
    const whose =
      have.length > 0 ? `It was exported for a server that has ${have.join(', ')}.` : 'Export it again.'
    throw new SourceError(`${this.#path} lacks ${wanted.length - next} files that are not held here`, {
      hint: whose,
    })
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
