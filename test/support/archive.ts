/** Archives of a tree, as upstreams publish them: made by GNU tar and the usual compressors. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { run } from './processes.ts'

/** File name endings, and the program that makes each. */
const COMPRESSORS = {
  tar: [],
  'tar.gz': ['gzip', '-1', '-n'],
  'tar.bz2': ['bzip2', '-1'],
  'tar.xz': ['xz', '-0'],
  'tar.lzma': ['xz', '-0', '--format=lzma'],
  'tar.zst': ['zstd', '-q', '-1'],
} as const

export type ArchiveSuffix = keyof typeof COMPRESSORS
export const ARCHIVE_SUFFIXES = Object.keys(COMPRESSORS) as ArchiveSuffix[]

export interface ArchiveOptions {
  /** The directory that becomes the build's root. */
  tree: string
  /** The archive's path without its suffix. */
  path: string
  suffix: ArchiveSuffix
  /** Only pax holds everything: nanoseconds, times before 1970, long names as bytes. */
  format?: 'pax' | 'gnu' | 'ustar'
  /** Owners as numbers only, or with their names too (the default, as most are made). */
  owners?: 'numeric' | 'named'
  xattrs?: boolean
  /** A directory that every name begins with, as in `os802/etc/passwd`; none unless given. */
  prefix?: string
  /** Writes the digest beside the archive, as `sha256sum` prints it. */
  sha256?: boolean
}

/** Makes the archive and returns its path. */
export async function makeArchive(options: ArchiveOptions): Promise<string> {
  const { tree, suffix, format = 'pax', owners = 'named', xattrs = false, prefix, sha256 = false } = options
  const path = `${options.path}.${suffix}`
  const compressor = COMPRESSORS[suffix].join(' ')
  const { code, stderr } = await run(
    'tar',
    [
      '--create',
      ...(compressor ? [`--use-compress-program=${compressor}`] : []),
      `--format=${format}`,
      // Without these two, pax headers hold access times and tar's process id: no two archives alike.
      ...(format === 'pax' ? ['--pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders/%f'] : []),
      ...(owners === 'numeric' ? ['--numeric-owner'] : []),
      ...(xattrs ? ['--xattrs', '--xattrs-include=*', '--acls'] : []),
      ...(prefix === undefined ? [] : [`--transform=flags=r;s,^\\.,${prefix},`]),
      ...['--sort=name', '--sparse', `--file=${path}`, `--directory=${tree}`, '.'],
    ],
    { env: { ...process.env, LC_ALL: 'C' }, timeoutMs: 300_000 },
  )
  assert.equal(code, 0, `tar failed:\n${stderr}`)
  if (sha256) {
    const digest = createHash('sha256').update(readFileSync(path)).digest('hex')
    writeFileSync(`${path}.sha256`, `${digest}  ${path.slice(path.lastIndexOf('/') + 1)}\n`)
  }
  return path
}
