/**
 * The binary setup: what both sides can do, which digests and codec they use, and the seed.
 * docs/rsync-protocol.md, sections 3.1 to 3.5. Its result holds for the whole session.
 */
import { RefusedError } from '../errors.ts'
import { ascii, showBytes } from '../lib/bytes.ts'
import { type CodecName, codecNamed, isOff, OFFERED_CODECS } from './codecs.ts'
import type { Connection } from './connection.ts'
import { type BlockSumRule, type DigestName, digestNamed, OFFERED_DIGESTS } from './digests.ts'
import type { TransferOptions } from './wire/arguments.ts'
import { decodeVstring, encodeVarint, encodeVstring } from './wire/ints.ts'

/** [compat-flags] Section 3.1. Incremental recursion (0x01) is declined by never setting its bit. */
export const COMPAT = {
  symlinkTimes: 0x002,
  symlinkIconv: 0x004,
  safeFlist: 0x008,
  avoidXattrOptimisation: 0x010,
  checksumSeedFix: 0x020,
  varintFlags: 0x080,
  id0Names: 0x100,
} as const

/** Lists of names are shorter than this: their own limit on the wire is 255. */
const MAX_NAMES = 1024

/** What the two sides agreed on. */
export interface Agreement {
  readonly protocol: number
  readonly compat: number
  /** Digest of file data and of blocks. */
  readonly transferDigest: DigestName
  /** Digest of -c: below protocol 30 the plain MD4. */
  readonly listDigest: DigestName
  readonly seed: number
  /** How file data is compressed; undefined for not at all. */
  readonly codec: CodecName | undefined
}

/**
 * @param seed what we use unless the client insists on another.
 * @throws RefusedError for a digest or codec that the client insists on and we don't have; it must be
 *   reported once the setup is complete, so it comes after both directions are multiplexed.
 */
export async function agree(
  connection: Connection,
  protocol: number,
  options: TransferOptions,
  seed: number,
): Promise<Agreement> {
  let compat = 0
  let refusal: RefusedError | undefined
  let transferDigest: DigestName = protocol >= 30 ? 'md5' : 'md4-seeded'
  let listDigest: DigestName = protocol >= 30 ? 'md5' : 'md4'

  if (protocol >= 30) {
    compat = compatFlags(options.info)
    encodeVarint(connection.out, compat)
  }
  const explicit = options.checksumChoice !== undefined && options.checksumChoice !== 'auto'
  if (explicit) {
    const [first = '', second = first] = options.checksumChoice!.split(',')
    const forTransfer = first === 'auto' ? transferDigest : digestNamed(first)
    const forList = second === 'auto' ? listDigest : digestNamed(second)
    if (forTransfer) transferDigest = forTransfer
    if (forList) listDigest = forList
    if (!forTransfer || !forList)
      refusal = new RefusedError(
        `this server has no checksum named "${showBytes(ascii(options.checksumChoice ?? ''), 50)}"`,
        4,
      )
  }
  const negotiated = (compat & COMPAT.varintFlags) !== 0
  const negotiateDigest = negotiated && !explicit
  const negotiateCodec = negotiated && options.compress && options.compressChoice === undefined
  if (negotiateDigest) encodeVstring(connection.out, ascii(OFFERED_DIGESTS.join(' ')))
  if (negotiateCodec) encodeVstring(connection.out, ascii(OFFERED_CODECS.join(' ')))
  if (negotiateDigest) {
    const theirs = (await connection.in.decode((bytes) => decodeVstring(bytes, MAX_NAMES))).split(' ')
    const common = theirs.find((name) => (OFFERED_DIGESTS as readonly string[]).includes(name))
    // The client finds out by itself and leaves with exit code 4.
    if (!common)
      throw new RefusedError(`no common checksum: the client has ${showBytes(ascii(theirs.join(' ')))}`, 4)
    transferDigest = digestNamed(common)!
    listDigest = transferDigest
  }
  if (options.checksum && listDigest === 'none') {
    refusal ??= new RefusedError('ERROR: --checksum needs a checksum, and was told to use none', 4)
  }
  let codec: CodecName | undefined
  if (negotiateCodec) {
    const theirs = (await connection.in.decode((bytes) => decodeVstring(bytes, MAX_NAMES))).split(' ')
    codec = theirs.map(codecNamed).find((name) => name !== undefined)
    if (!codec)
      throw new RefusedError(`no common compression: the client has ${showBytes(ascii(theirs.join(' ')))}`, 4)
  } else if (options.compress) {
    // Below compat bit 0x80 there is only zlib.
    const wanted = options.compressChoice ?? 'zlib'
    codec = codecNamed(wanted)
    if (!codec) {
      refusal ??= new RefusedError(
        `this server has no compression named "${showBytes(ascii(wanted), 50)}", only ${OFFERED_CODECS.join(', ')}`,
        4,
      )
    }
  }
  if (codec && isOff(codec, options.compressLevel)) codec = undefined

  const usedSeed = options.checksumSeed || seed
  connection.out.i32(usedSeed)
  await connection.startMuxOut()
  if (protocol >= 30) connection.startMuxIn()
  if (refusal) throw refusal
  return Object.freeze({ protocol, compat, transferDigest, listDigest, seed: usedSeed, codec })
}

/**
 * Whether a list tells of the errors met while it was made. At protocol 30 its end has a place for them only where
 * the client says that it knows of one (section 6.8).
 */
export function listTellsErrors({ protocol, compat }: Pick<Agreement, 'protocol' | 'compat'>): boolean {
  return protocol !== 30 || (compat & (COMPAT.safeFlist | COMPAT.varintFlags)) !== 0
}

/**
 * How the client sums its blocks. Below 30 there are no compat flags, and no MD5 but for a client that asks for
 * it by name: one that can do so hashes the seed first.
 */
export function blockSumRule({ protocol, compat, transferDigest, seed }: Agreement): BlockSumRule {
  const seedFirst = protocol < 30 || (compat & COMPAT.checksumSeedFix) !== 0
  return { name: transferDigest, seed, seedFirst }
}

/** Each conditional bit only for a client that says it understands it. */
function compatFlags(info: string): number {
  let flags: number = COMPAT.symlinkTimes | COMPAT.symlinkIconv
  if (info.includes('f')) flags |= COMPAT.safeFlist
  if (info.includes('x')) flags |= COMPAT.avoidXattrOptimisation
  if (info.includes('C')) flags |= COMPAT.checksumSeedFix
  if (info.includes('v')) flags |= COMPAT.varintFlags
  if (info.includes('u')) flags |= COMPAT.id0Names
  return flags
}
