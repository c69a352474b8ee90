/** Small trees for tests: archive entries with defaults, and builds made of them. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ArchiveEntry } from '../../src/archive/archive.ts'
import type { IngestRoom } from '../../src/build/blob-sink.ts'
import { Ingest, type IngestResult } from '../../src/build/ingest.ts'
import type { TreeLimits } from '../../src/build/tree-rules.ts'
import { type ByteString, utf8Bytes } from '../../src/lib/bytes.ts'
import type { BuildInfo } from '../../src/store/build-info.ts'
import { generateContents } from '../../src/store/contents.ts'
import type { Store } from '../../src/store/store.ts'

export interface TestEntry extends Partial<Omit<ArchiveEntry, 'path' | 'size' | 'linkTarget'>> {
  path: string
  /** For files: the content. */
  content?: string | Uint8Array
  linkTarget?: string
}

export const ENDLESS_ROOM: IngestRoom = { claim() {}, giveBack() {}, diskFull: () => false }

/** Feeds entries as an archive reader would, content in pieces of `pieces` bytes. */
export function feed(ingest: Ingest, entries: readonly TestEntry[], pieces = 64 * 1024): void {
  for (const { path, content = '', linkTarget = '', ...rest } of entries) {
    const bytes = typeof content === 'string' ? Buffer.from(content, 'latin1') : content
    ingest.entry({
      type: 'file',
      mode: rest.type === 'directory' ? 0o755 : 0o644,
      uid: 0,
      gid: 0,
      userName: undefined,
      groupName: undefined,
      size: bytes.length,
      mtime: 1_000_000_000,
      mtimeNsec: 0,
      major: 0,
      minor: 0,
      xattrs: undefined,
      ...rest,
      path: utf8Bytes(path),
      linkTarget: utf8Bytes(linkTarget),
    })
    for (let at = 0; at < bytes.length; at += pieces) ingest.data(bytes.subarray(at, at + pieces))
  }
}

/** Ingests entries without a store; what `known` says is what the store would have. */
export async function ingestAlone(
  entries: readonly TestEntry[],
  options: { limits?: TreeLimits; room?: IngestRoom; known?: (digest: Uint8Array) => boolean } = {},
): Promise<IngestResult> {
  const directory = temporaryDirectory()
  try {
    const known = { claim: options.known ?? (() => false) }
    const ingest = await Ingest.create(directory.path, known, options.room ?? ENDLESS_ROOM, options.limits)
    try {
      feed(ingest, entries)
      return ingest.finish()
    } finally {
      ingest.abort()
    }
  } finally {
    directory.remove()
  }
}

/** Ingests and publishes a build. */
export async function publishBuild(
  store: Store,
  id: string,
  entries: readonly TestEntry[],
  mayReplace?: () => boolean,
): Promise<IngestResult> {
  const staging = await store.beginIngest(id)
  let result: IngestResult
  try {
    const ingest = await Ingest.create(
      staging.directory,
      staging.known,
      ENDLESS_ROOM,
      undefined,
      store.disk.now,
    )
    try {
      feed(ingest, entries)
      result = ingest.finish()
    } finally {
      ingest.abort()
    }
  } catch (error) {
    await store.discardIngest(staging)
    throw error
  }
  await store.publish(staging, result, generateContents, buildInfo(id), mayReplace)
  return result
}

export function buildInfo(id: string): BuildInfo {
  return {
    id,
    source: 'test',
    url: `test:${id}`,
    fetched: '2026-01-01T00:00:00.000Z',
    archiveBytes: null,
    archiveSha256: null,
    totals: {
      entries: 0,
      files: 0,
      directories: 0,
      symlinks: 0,
      devices: 0,
      specials: 0,
      bytes: 0,
      blobBytes: 0,
    },
    addedBytes: 0,
    uniformMtime: null,
  }
}

/** Every file of a build read back through the store: path -> content. */
export async function readBuild(store: Store, id: string): Promise<Map<ByteString, string>> {
  const manifest = await store.manifest(id)
  const files = new Map<ByteString, string>()
  for (let i = 0; i < manifest.count; i++) {
    const blob = manifest.blob(i)
    if (blob < 0) continue
    const content = Buffer.alloc(manifest.blobSize(blob))
    if (content.length > 0) {
      using reader = await store.openBlob(manifest.blobDigest(blob))
      await reader.read([content], 0)
    }
    files.set(manifest.path(i), content.toString('latin1'))
  }
  return files
}

export function temporaryDirectory(): { path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), 'upserv-test-'))
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) }
}
