/**
 * upserv.json: what is true of a data directory for as long as it exists. Its format above all: what another
 * version has made is left as it is, byte for byte.
 */
import { randomInt } from 'node:crypto'
import { basename } from 'node:path'
import { StoreCorrupt, StoreFormat } from '../errors.ts'
import type { Disk } from '../lib/disk.ts'
import { codeOf, diskError } from './disk-error.ts'
import { replaceFile, syncAncestors } from './durable.ts'
import { STORE_FORMAT, type StorePaths } from './paths.ts'

/** A file that says nothing any more: written whole before anything else, so no crash has done this. */
const LOST_HINT =
  'Restore it from a backup, or choose an empty data_dir: builds are fetched again when asked for.'

export interface StoreFacts {
  format: number
  created: string
  /** The seed that rsync sessions use for block sums. Kept, so that equal bases give equal sums; never 0. */
  checksumSeed: number
}

/** Reads upserv.json, or makes it in an empty directory. @throws StoreFormat, StoreCorrupt. */
export async function readOrMakeFacts(disk: Disk, paths: StorePaths, now: () => Date): Promise<StoreFacts> {
  let text: string
  try {
    text = (await disk.readFile(paths.format)).toString('utf8')
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw diskError(error, paths.format)
    return await makeFacts(disk, paths, now)
  }
  let facts: Partial<StoreFacts>
  try {
    facts = Object(JSON.parse(text)) as Partial<StoreFacts>
  } catch (cause) {
    throw new StoreCorrupt(`${paths.format} is not JSON`, { hint: LOST_HINT, cause })
  }
  if (facts.format === undefined) {
    throw new StoreCorrupt(`${paths.format} does not say which format the directory has`, { hint: LOST_HINT })
  }
  if (facts.format !== STORE_FORMAT) {
    throw new StoreFormat(
      `${paths.root} has format ${JSON.stringify(facts.format)}; this program reads format ${STORE_FORMAT}`,
      {
        hint: 'Use the version that made it, or an empty data_dir: builds are fetched again when asked for.',
      },
    )
  }
  const { checksumSeed, created } = facts
  if (typeof created !== 'string' || !Number.isInteger(checksumSeed) || checksumSeed === 0) {
    throw new StoreCorrupt(`${paths.format} lacks what it should say`, { hint: LOST_HINT })
  }
  return { format: STORE_FORMAT, created, checksumSeed: checksumSeed! }
}

async function makeFacts(disk: Disk, paths: StorePaths, now: () => Date): Promise<StoreFacts> {
  // Somebody else's directory, or a store whose upserv.json was lost: neither is ours to write into.
  const others = (await disk.readdir(paths.root)).filter(
    (name) => name !== basename(paths.lock) && !name.startsWith('.'),
  )
  const foreign = others.filter((name) => name !== 'lost+found' && name !== `${basename(paths.format)}.new`)
  if (foreign.length > 0) {
    throw new StoreFormat(
      `${paths.root} is not empty and has no ${basename(paths.format)}: it holds ${foreign[0]}`,
      {
        hint: 'Choose an empty directory as data_dir.',
      },
    )
  }
  const facts: StoreFacts = {
    format: STORE_FORMAT,
    created: now().toISOString(),
    checksumSeed: randomInt(1, 2 ** 31 - 1),
  }
  // Its own name lasts only if those of the directories above it do, which we may just have made.
  await syncAncestors(disk, paths.root, 'name of the data directory')
  await replaceFile(disk, paths.format, Buffer.from(`${JSON.stringify(facts, null, 2)}\n`), 'upserv.json')
  return facts
}
