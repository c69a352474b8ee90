/**
 * What a child server and its parent say to each other, over HTTP. Pure; docs/parent-protocol.md has it in words.
 *
 * A build is had in two steps. First its manifest, in an answer that begins with lines of JSON for who waits
 * and ends with the manifest's bytes. Then the blobs that the child lacks, thousands in one request: both
 * sides cut what was asked for into the same spans, and each span comes as one zstd frame. A span of a file
 * of which the child holds an earlier version is compressed with that version as dictionary, so what a
 * changed file costs the link is about what changed in it.
 */
import { constants } from 'node:zlib'
import { z } from 'zod'
import { showText } from '../lib/bytes.ts'

/** Everything of this version lies below it. */
export const PARENT_PATH = '/parent/v1'

/** As many as a request names at most: half a megabyte or so of digests, and the answer is as long as it likes. */
export const MAX_WANTED = 8192
/** Seals of builds that a child names: those that are most likely to be like the one it asks for. */
export const MAX_SEALS = 16

const DIGEST_BYTES = 32
const RECORD_BYTES = 2 * DIGEST_BYTES
/** A line of JSON before the records, at most. */
const MAX_LINE = 1024
/** The largest body that a parent reads. */
export const MAX_REQUEST_BYTES = MAX_LINE + MAX_WANTED * RECORD_BYTES

/** Small files are compressed together up to this much, large ones in pieces of it. */
export const SPAN_BYTES = 4 << 20
/** What is inserted into a file moves the rest of it: a piece finds itself if that was no more than this. */
const DRIFT_BYTES = 1 << 20
/** Lines for who waits, and the one that announces the manifest. */
export const MAX_ANSWER_LINE = 64 << 10
/** A manifest takes about 150 bytes an entry: this is one of some million. */
export const MAX_MANIFEST_BYTES = 1 << 30
/** A larger manifest is sent without the help of another: both would have to lie in memory several times. */
export const MAX_DICTIONARY_BYTES = 32 << 20
/** Before each span: how many bytes it is, and how many it takes. */
export const SPAN_HEAD_BYTES = 8

// ---------------------------------------------------------------------------------------------------
// Lines

/** Words of a parent's for people here, in one line: they must not drive terminals, nor look like several. */
const words = (most: number) =>
  z
    .string()
    .max(most)
    .transform((text) => showText(text.replaceAll(/\s*\n\s*/g, ' ')))
const seal = z.string().regex(/^[0-9a-f]{64}$/)

/** The body of the request for a build: seals of manifests that the child has, those most alike first. */
export const sealsRequest = z.strictObject({ seals: z.array(seal).max(MAX_SEALS) })
export const MAX_SEALS_BYTES = 64 + MAX_SEALS * 72

/** A line of the answer to the request for a build. `say` any number of times, then one of the others. */
export const answerLine = z.union([
  z.strictObject({ say: words(1000) }),
  z.strictObject({
    error: z.object({
      code: z.string().max(100),
      message: words(4000),
      hint: words(4000).optional(),
    }),
  }),
  z.object({
    build: z.object({
      /** Of the manifest, and how many it takes here. */
      bytes: z.int().positive().max(MAX_MANIFEST_BYTES),
      sent: z.int().positive().max(MAX_MANIFEST_BYTES),
      /** Seal of the manifest that is the dictionary, and the id that the parent knows that build by. */
      base: z.object({ seal, id: z.string().max(300) }).nullable(),
      /** Of the file `contents`. */
      contentsSha256: seal,
      contentsBytes: z.int().nonnegative(),
      /** Where the build comes from in the first place, and who vouches for it. */
      url: words(4000),
      vouchers: z.array(words(1000)).max(50),
    }),
  }),
])
export type AnswerLine = z.infer<typeof answerLine>
export type BuildLine = Extract<AnswerLine, { build: unknown }>['build']

export const listAnswer = z.object({
  builds: z
    .array(z.object({ id: z.string().max(300), published: z.string().max(40).nullable() }))
    .max(100_000),
  complete: z.boolean(),
})
export type ListAnswer = z.infer<typeof listAnswer>

// ---------------------------------------------------------------------------------------------------
// The request for blobs

/** A blob that the child lacks. */
export interface Wanted {
  digest: Uint8Array
  /** An earlier version of it that both sides hold; undefined when there is none. */
  base: Uint8Array | undefined
}

export interface BlobRequest {
  /** The build that the earlier versions are of; null when there are none. */
  base: string | null
  /** The answer begins at this byte of the first blob: a multiple of SPAN_BYTES. */
  from: number
  wanted: Wanted[]
}

const requestLine = z.strictObject({
  base: z.string().max(300).nullable(),
  from: z.int().nonnegative().multipleOf(SPAN_BYTES),
})

export function encodeBlobRequest({ base, from, wanted }: BlobRequest): Uint8Array {
  const line = Buffer.from(`${JSON.stringify({ base, from })}\n`)
  const body = Buffer.alloc(line.length + wanted.length * RECORD_BYTES)
  body.set(line)
  for (const [i, { digest, base: earlier }] of wanted.entries()) {
    body.set(digest, line.length + i * RECORD_BYTES)
    if (earlier) body.set(earlier, line.length + i * RECORD_BYTES + DIGEST_BYTES)
  }
  return body
}

/** Undefined when it is none. */
export function decodeBlobRequest(body: Uint8Array): BlobRequest | undefined {
  const end = body.indexOf(10)
  const records = end < 0 ? -1 : (body.length - end - 1) / RECORD_BYTES
  if (end > MAX_LINE || !Number.isInteger(records) || records < 1 || records > MAX_WANTED) return undefined
  let line: unknown
  try {
    line = JSON.parse(new TextDecoder().decode(body.subarray(0, end)))
  } catch {
    return undefined
  }
  const parsed = requestLine.safeParse(line)
  if (!parsed.success) return undefined
  const wanted = Array.from({ length: records }, (_, i) => {
    const at = end + 1 + i * RECORD_BYTES
    const base = body.subarray(at + DIGEST_BYTES, at + RECORD_BYTES)
    return {
      digest: body.subarray(at, at + DIGEST_BYTES),
      base: base.some((byte) => byte !== 0) ? base : undefined,
    }
  })
  return { ...parsed.data, wanted }
}

// ---------------------------------------------------------------------------------------------------
// Spans

/** A blob that was asked for, as both sides know it. */
export interface Sized {
  size: number
  /** Bytes of its earlier version; 0 when there is none. */
  baseSize: number
}

/** What comes as one frame: pieces of blobs, one after the other. */
export interface Span {
  /** Number of the first blob in the request, and how many there are: more than one only of whole blobs. */
  first: number
  count: number
  /** Where in the first blob it begins. */
  offset: number
  bytes: number
  /** The stretch of the earlier version that is its dictionary; undefined for none. */
  dictionary: { offset: number; bytes: number } | undefined
}

/** How an answer is cut, the same on both sides. */
export function* spansOf(blobs: readonly Sized[], from: number): Generator<Span> {
  for (let first = 0; first < blobs.length; ) {
    const { size, baseSize } = blobs[first]!
    if (baseSize > 0 || size > SPAN_BYTES) {
      for (let offset = first === 0 ? from : 0; offset < size; offset += SPAN_BYTES) {
        const bytes = Math.min(SPAN_BYTES, size - offset)
        yield { first, count: 1, offset, bytes, dictionary: stretch(offset, bytes, baseSize) }
      }
      first++
      continue
    }
    let bytes = 0
    let count = 0
    for (let i = first; i < blobs.length; i++) {
      const blob = blobs[i]!
      if (blob.baseSize > 0 || bytes + blob.size > SPAN_BYTES) break
      bytes += blob.size
      count++
    }
    yield { first, count, offset: 0, bytes, dictionary: undefined }
    first += count
  }
}

function stretch(offset: number, bytes: number, baseSize: number): Span['dictionary'] {
  const start = Math.max(0, Math.min(offset, baseSize) - DRIFT_BYTES)
  const end = Math.min(baseSize, offset + bytes + DRIFT_BYTES)
  return end > start ? { offset: start, bytes: end - start } : undefined
}

/** Frames of this many bytes are as long as zstd makes them of what does not compress. */
export function mostCompressed(bytes: number): number {
  return bytes + (bytes >> 8) + 512
}

/**
 * How a frame is compressed. With a dictionary, level 9 finds its content if the tables that it is hashed
 * into are as large as it is; measured with 4 MB that had lost and gained a few stretches: 1.4 kB.
 */
export function frameParams(bytes: number, dictionaryBytes: number): Record<number, number> {
  if (dictionaryBytes === 0) return { [constants.ZSTD_c_compressionLevel]: 9 }
  const log = Math.max(10, Math.ceil(Math.log2(bytes + dictionaryBytes)))
  return {
    [constants.ZSTD_c_compressionLevel]: 9,
    [constants.ZSTD_c_windowLog]: Math.min(26, log),
    [constants.ZSTD_c_hashLog]: Math.min(22, log),
    [constants.ZSTD_c_chainLog]: Math.min(22, log),
  }
}
