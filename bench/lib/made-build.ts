/**
 * Builds that nobody has to download: trees of any number of entries, shaped like a system's (many small
 * files, few large ones, links, a kernel whose path holds its version), and their next generations.
 *
 * The same arguments always give the same bytes. From one generation to the next some files are edited
 * in the middle, some get another time with the same content (as image builders do), and the kernel moves
 * to a new path.
 */
import { TarWriter } from '../../script/lib/tar-writer.ts'
import { randomFrom, seedOf } from './random.ts'

export interface MadeBuild {
  /** How many entries, about: links and directories are among them. */
  entries: number
  /** Which build of the series; 0 is the first. */
  generation: number
  /** Mean size of the small files. */
  fileBytes: number
  /** One file in so many is a large one; 0 for none. */
  largeEvery: number
}

/** Part of the files that are edited from one generation to the next, and that only get another time. */
const EDITED = 0.03
const TOUCHED = 0.1

/** A large file is a library or a program. */
const LARGE_BYTES = 2_000_000

/** As directories of real systems: the Debian pair has 11 entries for each. */
const FILES_PER_DIRECTORY = 10

/** Files that lie under a path with the generation in it. */
const KERNEL_FILES = 40

/** 2026-01-01; each generation is a week later. */
const FIRST_TIME = Date.UTC(2026, 0, 1) / 1000
const WEEK = 7 * 24 * 3600

const MAGIC = { content: 1, edit: 2, touch: 3, size: 4, place: 5 }

/** What all files are cut from: words, which compress about as programs and texts do. */
const POOL = makePool(4 << 20)

export function makeBuild(build: MadeBuild): TarWriter {
  const { entries, generation, fileBytes, largeEvery } = build
  const tar = new TarWriter(FIRST_TIME)
  tar.directory('')
  const time = (of: number): number => FIRST_TIME + of * WEEK
  const kernel = `lib/modules/6.1.0-${generation}`
  for (const path of ['lib', 'lib/modules', 'usr', 'dev']) tar.directory(path)
  tar.directory(kernel, { mtime: time(generation) })
  for (let index = 0; index < Math.min(KERNEL_FILES, entries / 10); index++) {
    const content = contentOf(-1 - index, fileBytes * 4, generation)
    tar.file(`${kernel}/m${index}.ko`, content, { mtime: time(generation) })
  }
  tar.charDevice('dev/null', 1, 3, { mode: 0o666 })

  for (let index = 0; tar.entries < entries; index++) {
    const group = Math.floor(index / FILES_PER_DIRECTORY)
    const parent = `usr/${(group % 64).toString(36)}`
    const directory = `${parent}/d${group}`
    if (group < 64 && index % FILES_PER_DIRECTORY === 0) tar.directory(parent)
    if (index % FILES_PER_DIRECTORY === 0) tar.directory(directory)
    const path = `${directory}/f${index}`
    if (index % 14 === 13) tar.symlink(path, `f${index - 1}`)
    else if (index % 1000 === 505 && index % 14 !== 0) tar.hardlink(path, `${directory}/f${index - 1}`)
    else {
      const edits = countOf(index, generation, MAGIC.edit, EDITED)
      const changed = Math.max(edits.last, countOf(index, generation, MAGIC.touch, TOUCHED).last)
      const isLarge = largeEvery > 0 && index % largeEvery === 7
      const size = sizeOf(index, isLarge ? LARGE_BYTES : fileBytes)
      tar.file(path, contentOf(index, size, edits.count), { mtime: time(changed) })
    }
  }
  return tar
}

/** How often something of this likelihood befell a file until `generation`, and when last. */
function countOf(
  index: number,
  generation: number,
  what: number,
  likelihood: number,
): { count: number; last: number } {
  let count = 0
  let last = 0
  for (let now = 1; now <= generation; now++) {
    if (randomFrom(seedOf(what, index, now))() < likelihood) {
      count++
      last = now
    }
  }
  return { count, last }
}

/** Sizes vary by about 20 to 1, small ones more often. */
function sizeOf(index: number, mean: number): number {
  return Math.round(mean * 0.1 + mean * 2.7 * randomFrom(seedOf(MAGIC.size, index))() ** 2)
}

/** Pieces of the pool with a word of its own between them, and each edit in the middle of one piece. */
function contentOf(index: number, size: number, edits: number): Buffer {
  const random = randomFrom(seedOf(MAGIC.content, index))
  const content = Buffer.allocUnsafe(size)
  for (let at = 0; at < size; ) {
    const piece = Math.min(size - at, 200 + Math.floor(random() * 1800))
    const from = Math.floor(random() * (POOL.length - piece))
    POOL.copy(content, at, from, from + piece)
    at += piece
    if (at + 8 <= size) content.writeUInt32LE(Math.floor(random() * 2 ** 32), at - Math.min(4, piece))
  }
  let edited = content
  for (let edit = 1; edit <= edits; edit++) {
    const place = Math.floor(randomFrom(seedOf(MAGIC.place, index, edit))() * edited.length)
    const inserted = Buffer.from(`edit ${edit} of file ${index}\n`)
    edited = Buffer.concat([edited.subarray(0, place), inserted, edited.subarray(place)])
  }
  return edited
}

function makePool(size: number): Buffer {
  const random = randomFrom(seedOf(802))
  const syllables = Array.from({ length: 200 }, () =>
    Math.floor(random() * 2 ** 32)
      .toString(36)
      .slice(0, 2 + Math.floor(random() * 4)),
  )
  const words: string[] = []
  for (let length = 0; length < size; ) {
    const word = syllables[Math.floor(random() ** 2 * syllables.length)]! + (random() < 0.1 ? '\n' : ' ')
    words.push(word)
    length += word.length
  }
  return Buffer.from(words.join('').slice(0, size), 'latin1')
}
