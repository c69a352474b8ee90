/**
 * Data directories of many builds, for measuring: as so many fetches would have left them.
 *
 * Each build has so many entries, some with content of its own, the others shared with builds before it.
 * Contents are tiny: what counts here is how many there are.
 */
import { createHash, randomBytes } from 'node:crypto'
import { join } from 'node:path'
import type { ByteString } from '../../src/lib/bytes.ts'
import { DIRECTORY, REGULAR } from '../../src/lib/file-mode.ts'
import type { BuildInfo } from '../../src/store/build-info.ts'
import { encodeManifest, type TreeEntry } from '../../src/store/manifest.ts'
import { PackWriter } from '../../src/store/pack.ts'
import { newPackName } from '../../src/store/paths.ts'
import { Store } from '../../src/store/store.ts'

const FILES_IN_DIRECTORY = 100
export const BLOB_BYTES = 16

export interface ManyBuilds {
  builds: number
  entries: number
  /** Files of each build with content that no build before it has. */
  fresh: number
}

/** Makes the directory. Ids are numbers from 0 on. */
export async function fillStore(data: string, many: ManyBuilds): Promise<void> {
  const { builds, entries, fresh } = many
  const store = await Store.open(data)
  let blobs: Buffer[] = []
  let published = 0
  let began = performance.now()
  for (let n = 0; n < builds; n++) {
    const staging = await store.beginIngest(String(n))
    const own = Array.from({ length: n === 0 ? entries : fresh }, () => randomBytes(BLOB_BYTES))
    const path = join(staging.directory, newPackName())
    const pack = new PackWriter(path)
    const digests = own.map((content) => createHash('sha256').update(content).digest())
    for (const [i, content] of own.entries()) {
      pack.begin()
      pack.append(content)
      pack.keep(digests[i]!)
    }
    pack.seal()
    // The newest content of earlier builds stays in use: the next build differs a little from this one.
    const all = [...digests, ...blobs.slice(0, entries - digests.length)]
    blobs = [...digests, ...blobs].slice(0, entries)
    const manifest = manifestOf(all)
    await store.publish(
      staging,
      { packs: [path], manifest },
      () => Buffer.from('contents\n'),
      infoOf(n, entries),
    )
    published++
    if (performance.now() - began > 20_000) {
      console.log(`  ${published} of ${builds} builds are made`)
      began = performance.now()
    }
  }
  await store.close()
}

function manifestOf(digests: readonly Buffer[]): Uint8Array {
  const tree: TreeEntry[] = [entryOf(0, '', DIRECTORY | 0o755, -1)]
  for (let at = 0; at < digests.length; at += FILES_IN_DIRECTORY) {
    const directory = tree.push(entryOf(0, `directory-${at}`, DIRECTORY | 0o755, -1)) - 1
    const end = Math.min(at + FILES_IN_DIRECTORY, digests.length)
    for (let i = at; i < end; i++) tree.push(entryOf(directory, `some-file-${i}`, REGULAR | 0o644, i))
  }
  return encodeManifest({
    entries: tree,
    blobs: {
      count: digests.length,
      sizes: new Array(digests.length).fill(BLOB_BYTES),
      sha256: Buffer.concat(digests),
      md5: Buffer.alloc(digests.length * 16, 1),
      xxh128: Buffer.alloc(digests.length * 16, 1),
    },
    userNames: new Map(),
    groupNames: new Map(),
  })
}

function entryOf(parent: number, name: string, mode: number, blob: number): TreeEntry {
  return {
    parent,
    name: name as ByteString,
    mode,
    uid: 0,
    gid: 0,
    size: blob < 0 ? 0 : BLOB_BYTES,
    mtime: 1_700_000_000 + blob,
    mtimeNsec: 0,
    major: 0,
    minor: 0,
    linkTarget: '' as ByteString,
    sameAs: -1,
    xattrs: [],
    blob,
  }
}

function infoOf(n: number, entries: number): BuildInfo {
  const totals = {
    entries,
    files: entries,
    directories: 1,
    symlinks: 0,
    devices: 0,
    specials: 0,
    bytes: 0,
    blobBytes: 0,
  }
  return {
    id: String(n),
    source: 'bench',
    url: 'bench:',
    fetched: new Date(0).toISOString(),
    archiveBytes: null,
    archiveSha256: null,
    totals,
    addedBytes: 0,
    uniformMtime: null,
  }
}
