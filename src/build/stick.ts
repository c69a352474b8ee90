/**
 * A stick as xs-rsync made them: `xs-xobuilds/` with the archive of each build, and beside it `.md5`,
 * `.contents` and `.name`; `manifest.sha1` has the digests of all of them. The name is the build's id.
 */
import { createHash } from 'node:crypto'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { CommandError, DigestMismatch, SourceError } from '../errors.ts'
import { type Disk, realDisk } from '../lib/disk.ts'
import type { SourceConfig } from '../source/source.ts'
import { isBuildId } from './build-id.ts'

export const STICK_DIRECTORY = 'xs-xobuilds'
const MANIFEST = 'manifest.sha1'
/** A name, a digest: some bytes. */
const MAX_SMALL_BYTES = 64 << 10
const READ_BYTES = 1 << 20

export interface StickBuild {
  id: string
  /** Names of what belongs to it. */
  files: readonly string[]
  source: SourceConfig
}

/** The builds on a stick, each as a source of its own. @throws CommandError */
export async function buildsOnStick(directory: string, disk: Disk = realDisk): Promise<StickBuild[]> {
  const place = join(directory, STICK_DIRECTORY)
  const names = await disk.readdir(place).catch((cause: Error) => {
    throw new CommandError(`${place} cannot be read: ${cause.message}`, {
      hint: 'The server sees nothing below /root and /home, and another /tmp, as systemd starts it: mount the stick elsewhere, as below /media.',
      cause,
    })
  })
  const builds: StickBuild[] = []
  // What begins with a dot is what other systems leave behind, as in `._os802.name`.
  for (const name of names.filter((one) => one.endsWith('.name') && !one.startsWith('.')).sort()) {
    const stem = name.slice(0, -'.name'.length)
    const id = (await readSmall(disk, join(place, name))).trim().replace(/^build-/, '')
    if (!isBuildId(id))
      throw new CommandError(`${join(place, name)} holds "${id.slice(0, 100)}", which is no build id`)
    const archive = names.find((one) => one.startsWith(`${stem}-tree.tar`) && !one.endsWith('.md5'))
    if (archive === undefined) throw new CommandError(`${place} has ${name}, but no ${stem}-tree.tar.*`)
    const url = pathToFileURL(join(place, archive)).href
    const contents = names.includes(`${stem}.contents`)
      ? pathToFileURL(join(place, `${stem}.contents`)).href
      : undefined
    builds.push({
      id,
      files: [name, archive, `${archive}.md5`, `${stem}.contents`],
      source: {
        name: 'import',
        builds: '^.+$',
        url,
        checksum: `${url}.md5`,
        contents,
        tree: { pristine: true },
      },
    })
  }
  if (builds.length === 0) throw new CommandError(`${place} holds no builds: there is no *.name`)
  return builds
}

/** Whether an archive lies where those of sticks do. */
export function isOnStick(url: string): boolean {
  return url.startsWith('file:') && basename(dirname(fileURLToPath(url))) === STICK_DIRECTORY
}

/** A build that came from there, to be read again. @throws CommandError, SourceError when it is not there any more. */
export async function sourceOnStick(id: string, url: string): Promise<SourceConfig> {
  const directory = dirname(dirname(fileURLToPath(url)))
  const found = (await buildsOnStick(directory)).find((build) => build.id === id)
  if (!found) throw new SourceError(`${join(directory, STICK_DIRECTORY)} does not have it any more`)
  return found.source
}

/**
 * Compares what `manifest.sha1` says of these builds' files, and reads all of them; `say` is told how it goes. What
 * else lies on the stick is nobody's business: systems leave files of their own behind. @throws DigestMismatch
 */
export async function checkStick(
  directory: string,
  builds: readonly StickBuild[],
  say: (line: string) => void,
  signal: AbortSignal,
  disk: Disk = realDisk,
): Promise<void> {
  const place = join(directory, STICK_DIRECTORY)
  const names = await disk.readdir(place)
  if (!names.includes(MANIFEST)) {
    say(`${STICK_DIRECTORY} has no ${MANIFEST}: only the .md5 of each build is compared`)
    return
  }
  const listed = new Map<string, string>()
  for (const line of (await readSmall(disk, join(place, MANIFEST))).split('\n')) {
    const [, digest, path] = /^([0-9a-f]{40})[ *]{1,2}(.+)$/.exec(line.trim()) ?? []
    if (digest !== undefined && path !== undefined) listed.set(path.replace(/^.*\//, ''), digest)
  }
  for (const name of builds.flatMap(({ files }) => files)) {
    const expected = listed.get(name)
    if (!names.includes(name)) {
      if (expected === undefined) continue
      throw new CommandError(`${MANIFEST} names ${name}, which is not on the stick`)
    }
    if (expected === undefined) throw new CommandError(`${join(place, name)} is not in ${MANIFEST}`)
    say(`checking ${name}`)
    const actual = await sha1Of(disk, join(place, name), signal)
    if (actual !== expected) throw new DigestMismatch(join(place, name), 'sha1', expected, actual)
  }
}

async function sha1Of(disk: Disk, path: string, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha1')
  const file = await disk.open(path, 'r')
  try {
    const buffer = Buffer.allocUnsafe(READ_BYTES)
    for (let at = 0; ; ) {
      signal.throwIfAborted()
      const { bytesRead } = await file.read(buffer, 0, READ_BYTES, at)
      if (bytesRead === 0) return hash.digest('hex')
      hash.update(buffer.subarray(0, bytesRead))
      at += bytesRead
    }
  } finally {
    await file.close()
  }
}

async function readSmall(disk: Disk, path: string): Promise<string> {
  const { size } = await disk.stat(path)
  if (size > MAX_SMALL_BYTES) throw new CommandError(`${path} is too large for what it should be`)
  return (await disk.readFile(path)).toString('utf8')
}
