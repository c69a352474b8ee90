/**
 * The digests of the protocol: of whole files and of blocks, under each name that can be negotiated.
 * docs/rsync-protocol.md, sections 3.3 and 8.4.
 *
 * All functions here are synchronous and meant for bytes in memory; what is long runs in a worker thread.
 */
import { createHash, hash } from 'node:crypto'
import { createMD4, createXXHash3, createXXHash64, createXXHash128, type IHasher } from 'hash-wasm'

/** 'md4-seeded' is the legacy form of protocol 29 and older, which hashes the seed with every file. */
export type DigestName = 'xxh128' | 'xxh3' | 'xxh64' | 'md5' | 'md4' | 'md4-seeded' | 'sha1' | 'none'

/** Bytes of a file digest. */
export const DIGEST_LENGTH: Record<DigestName, number> = {
  xxh128: 16,
  xxh3: 8,
  xxh64: 8,
  md5: 16,
  md4: 16,
  'md4-seeded': 16,
  sha1: 20,
  none: 1,
}

/**
 * Names that we offer when a client negotiates, the client's order deciding. `md4` is not among them: a
 * client with a crypto library hashes its seed before the block, one without behind it, and nothing on
 * the wire tells them apart. Those with 16 bytes come first, as clients before 3.5.0 ask for 16 bytes of
 * an 8-byte digest when they redo a file.
 */
export const OFFERED_DIGESTS = ['xxh128', 'xxh3', 'xxh64', 'md5', 'sha1', 'none'] as const

/**
 * The digest that a client insists on by name, or undefined for one we do not have. Here MD4 may be had:
 * should the client hash its seed the other way round, no block matches and all is sent as literals.
 */
export function digestNamed(name: string): DigestName | undefined {
  if (name === 'xxhash') return 'xxh64'
  if (name === 'md4') return 'md4'
  return (OFFERED_DIGESTS as readonly string[]).includes(name) ? (name as DigestName) : undefined
}

/**
 * The digest that follows a file's data, and the one of -c, in the wire's layout. Takes all pieces in one
 * go, so that states can be shared: no two digests are ever under way at once in one thread.
 *
 * Only the legacy MD4 hashes the seed, in front of the data and also when it is 0.
 */
export function fileDigest(name: DigestName, seed: number, pieces: Iterable<Uint8Array>): Uint8Array {
  switch (name) {
    case 'md5':
    case 'sha1': {
      const state = createHash(name)
      for (const piece of pieces) state.update(piece)
      return state.digest()
    }
    case 'md4':
      return run(MD4, pieces)
    case 'md4-seeded':
      return run(MD4, pieces, seedBytes(seed))
    case 'none':
      return new Uint8Array(1)
    default:
      return run(FILE_XXH[name], pieces).reverse()
  }
}

function run(state: IHasher, pieces: Iterable<Uint8Array>, head?: Uint8Array): Uint8Array {
  state.init()
  if (head) state.update(head)
  for (const piece of pieces) state.update(piece)
  return state.digest('binary')
}

export interface BlockSumRule {
  name: DigestName
  seed: number
  /** Compat bit 0x20: MD5 hashes the seed before the block instead of behind it. */
  seedFirst: boolean
}

/** Computes the strong sum of one block. */
export function createBlockSum({ name, seed, seedFirst }: BlockSumRule): (block: Uint8Array) => Uint8Array {
  const seedPart = seed === 0 ? new Uint8Array(0) : seedBytes(seed)
  switch (name) {
    case 'md5':
      if (seed === 0) return (block) => hash('md5', block, 'buffer')
      return seedFirst
        ? (block) => createHash('md5').update(seedPart).update(block).digest()
        : (block) => createHash('md5').update(block).update(seedPart).digest()
    case 'sha1':
      return (block) => createHash('sha1').update(seedPart).update(block).digest()
    case 'md4':
    case 'md4-seeded':
      return (block) => run(BLOCK_MD4, [block, seedPart])
    case 'none':
      return () => new Uint8Array(1)
    default: {
      const state = xxh(name, seed)
      const one: Uint8Array[] = []
      return (block) => {
        one[0] = block
        return run(state, one).reverse()
      }
    }
  }
}

function seedBytes(seed: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32LE(seed | 0)
  return bytes
}

/**
 * One state for each xxhash and seed. A seed is 32 bits on the wire and sign-extended to 64 for xxhash.
 * The wire's layout is little-endian, the reverse of xxhash's canonical one that the library gives.
 */
function xxh(name: 'xxh128' | 'xxh3' | 'xxh64', seed: number): IHasher {
  if (seed === 0) return BLOCK_XXH[name]
  const state = SEEDED.get(`${name}:${seed}`)
  if (!state) throw new Error(`prepareBlockSum was not called for ${name} with seed ${seed}`)
  return state
}

const SEEDED = new Map<string, IHasher>()
/** Seeds other than the server's own come from clients: only so many are kept. */
const MAX_SEEDED = 32

/**
 * Must have been awaited before a block sum with this seed is made: instances of WebAssembly are
 * created asynchronously.
 */
export async function prepareBlockSum({ name, seed }: BlockSumRule): Promise<void> {
  if (seed === 0 || (name !== 'xxh128' && name !== 'xxh3' && name !== 'xxh64')) return
  const key = `${name}:${seed}`
  if (SEEDED.has(key)) return
  const high = seed < 0 ? 0xffffffff : 0
  const state = await CREATE[name](seed >>> 0, high)
  if (SEEDED.size >= MAX_SEEDED) SEEDED.delete(SEEDED.keys().next().value!)
  SEEDED.set(key, state)
}

const CREATE = { xxh128: createXXHash128, xxh3: createXXHash3, xxh64: createXXHash64 }

// Files and blocks have states of their own, as blocks are summed while a file may be under way.
const MD4 = await createMD4()
const BLOCK_MD4 = await createMD4()
const FILE_XXH = {
  xxh128: await createXXHash128(),
  xxh3: await createXXHash3(),
  xxh64: await createXXHash64(),
}
const BLOCK_XXH = {
  xxh128: await createXXHash128(),
  xxh3: await createXXHash3(),
  xxh64: await createXXHash64(),
}
