/**
 * Stock clients, as far as they decide what is asked of us: what each release says of itself, and how it cuts
 * its files into blocks. docs/rsync-protocol.md, sections 2.5, 3.3, 3.4 and 8.3.
 *
 * For whoever plays a client's part: what is agreed on comes from the very code that agrees with real ones.
 */
import { ByteWriter } from '../lib/byte-writer.ts'
import { ascii, type ByteString } from '../lib/bytes.ts'
import { type CodecName, OFFERED_CODECS } from './codecs.ts'
import { Connection } from './connection.ts'
import { DIGEST_LENGTH, type DigestName } from './digests.ts'
import { type Agreement, agree } from './setup.ts'
import type { StockRelease } from './stock-releases.ts'
import { parseArguments, type TransferOptions } from './wire/arguments.ts'
import { encodeVstring } from './wire/ints.ts'
import { MAX_SUM_BYTES, type SumHead, sumBytes } from './wire/sums.ts'

interface StockClient {
  /** The highest that the first release speaks. What protocol 32 changed is nothing that is kept. */
  readonly protocol: number
  /** The client info string, behind `e` in the cluster of letters. */
  readonly info: string
  /** Takes -A and -X. */
  readonly hasAttributes: boolean
  /** What it lists when digests and codecs are negotiated. */
  readonly digests: string
  readonly codecs: string
  /** What its user can choose beside that. */
  readonly choices: readonly CodecName[]
}

const NEGOTIATES_NOT = { digests: '', codecs: '', choices: ['zlib'] } as const

const STOCK_CLIENTS: Readonly<Record<StockRelease, StockClient>> = {
  '3.2': {
    protocol: 31,
    info: '.iLsfxCIvu',
    hasAttributes: true,
    digests: 'xxh128 xxh3 xxh64 md5 md4 sha1',
    codecs: 'zstd lz4 zlibx zlib',
    choices: OFFERED_CODECS,
  },
  // 3.1 knows --new-compress as well, which hardly anybody has ever used.
  '3.1': { protocol: 31, info: '.iLsfxC', hasAttributes: true, ...NEGOTIATES_NOT },
  '3.0': { protocol: 30, info: '.iLsf', hasAttributes: true, ...NEGOTIATES_NOT },
  '2.6': { protocol: 29, info: '', hasAttributes: false, ...NEGOTIATES_NOT },
}

/** How a device's client is called, as far as it matters. */
export interface StockOptions {
  /** Letters beside those of -a: `H`, `A`, `X`, `c`. */
  readonly letters: string
  readonly numericIds: boolean
  /** 'auto' is -z alone. */
  readonly compress: CodecName | 'auto' | undefined
}

/** What we and a client of a release come to. */
export interface StockVisit {
  readonly options: TransferOptions
  readonly agreement: Agreement
}

/** Whether a client of this release can be called like that. */
export function isPossible(release: StockRelease, { letters, compress }: StockOptions): boolean {
  const { hasAttributes, choices } = STOCK_CLIENTS[release]
  if (/[AX]/.test(letters) && !hasAttributes) return false
  return compress === undefined || compress === 'auto' || choices.includes(compress)
}

/** @param path what it asks for, the module's name included. */
export async function visitOf(
  release: StockRelease,
  stockOptions: StockOptions,
  path: ByteString,
  seed: number,
): Promise<StockVisit> {
  const client = STOCK_CLIENTS[release]
  const options = parseArguments(argumentsOf(client, stockOptions, path))
  const says = new ByteWriter(256)
  if (client.digests !== '') encodeVstring(says, ascii(client.digests))
  if (client.codecs !== '' && stockOptions.compress === 'auto') encodeVstring(says, ascii(client.codecs))
  let input: Uint8Array | undefined = says.take()
  const connection = new Connection(
    {
      read: async () => {
        const piece = input
        input = undefined
        return piece
      },
      write: async (_, whenDone) => whenDone?.(),
    },
    () => 0,
  )
  const agreement = await agree(connection, client.protocol, options, seed)
  return { options, agreement }
}

/** The vector that the client sends; section 2 has real ones. */
function argumentsOf(
  { info }: StockClient,
  { letters, numericIds, compress }: StockOptions,
  path: ByteString,
): ByteString[] {
  const long: string[] = []
  // A client that names a codec sends no z, but for this one (section 2.7).
  if (compress === 'zlib' && info.includes('v')) long.push('--old-compress')
  else if (compress === 'zlibx') long.push('--new-compress')
  else if (compress === 'zstd' || compress === 'lz4') long.push(`--compress-choice=${compress}`)
  if (numericIds) long.push('--numeric-ids')
  const z = compress === 'auto' || compress === 'zlib' ? 'z' : ''
  const cluster = `-logDtpr${letters}${z}${info === '' ? '' : `e${info}`}`
  return ['--server', '--sender', cluster, ...long, '.', path].map(ascii)
}

/** A block is at least so long, unless -B says otherwise. */
const MIN_BLOCK = 700
const MAX_BLOCK = 2 ** 17
const OLD_MAX_BLOCK = 2 ** 29
const LEAST_STRONG = 2
/** Of a strong sum stock clients send no more, whatever the digest. */
export const MOST_STRONG = 16
/** Bits of a sum that are to spare, so that two blocks are taken for equal once in 2^10 files. */
const SPARE_BITS = 10
const WEAK_BITS = 24

/**
 * [sum-head] How a client cuts a basis into blocks when it first asks for a file. Undefined when it sends no
 * sums, since there is nothing to sum, or so many that we would not look at them.
 */
export function stockSumHead(length: number, protocol: number, digest: DigestName): SumHead | undefined {
  if (length === 0) return undefined
  const longest = protocol < 30 ? OLD_MAX_BLOCK : MAX_BLOCK
  const root = Math.floor(Math.sqrt(length))
  const blockLength = Math.min(longest, Math.max(MIN_BLOCK, root - (root % 8)))
  const bits = SPARE_BITS + 2 * floorLog2(length) - floorLog2(blockLength)
  const wanted = Math.trunc((bits - WEAK_BITS) / 8)
  const head = {
    count: Math.ceil(length / blockLength),
    blockLength,
    strongLength: Math.min(MOST_STRONG, DIGEST_LENGTH[digest], Math.max(LEAST_STRONG, wanted)),
    remainder: length % blockLength,
  }
  return sumBytes(head) <= MAX_SUM_BYTES ? head : undefined
}

/** Exact, where a logarithm is rounded up. */
function floorLog2(value: number): number {
  let power = 0
  for (let rest = value; rest >= 2; rest /= 2) power++
  return power
}
