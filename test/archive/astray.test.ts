/** Archives that lead whoever reads them astray: to files of this machine, or round and round. */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { readExt } from '../../src/archive/ext.ts'
import { readArchive } from '../../src/archive/read.ts'
import { ArchiveError } from '../../src/errors.ts'
import { findProgram } from '../../src/lib/find-program.ts'
import { run } from '../support/processes.ts'
import { makeScratch } from '../support/scratch.ts'
import { RecordingSink } from '../support/tar-builder.ts'

async function whyNot(...programs: string[]): Promise<string | false> {
  for (const program of programs) if ((await findProgram(program)) === undefined) return `needs ${program}`
  return false
}

// ---------------------------------------------------------------------------------------------------
// What says where an image says that it is one, and is something else to a program.

/** An empty header of rpm's, and the lead before two of them: what follows is what the package holds. */
const RPM_HEADER = Buffer.concat([Buffer.from('8eade80100000000', 'hex'), Buffer.alloc(8)])
const RPM = Buffer.concat([Buffer.from('edabeedb0300', 'hex'), Buffer.alloc(90), RPM_HEADER, RPM_HEADER])

const DISGUISES: { name: string; before: Uint8Array; says: string }[] = [
  { name: 'mtree', before: Buffer.alloc(0), says: '#mtree\n' },
  { name: 'mtree without its first line', before: Buffer.alloc(0), says: '\n \t# a list\n' },
  { name: 'mtree in a package', before: RPM, says: '#mtree\n' },
]

describe('text that says it is an ISO image', { skip: await whyNot('bsdtar') }, () => {
  for (const { name, before, says } of DISGUISES)
    test(`${name}: no file of this machine gets into a build`, async () => {
      using scratch = makeScratch('astray')
      const [secret, file] = [join(scratch.path, 'secret'), join(scratch.path, 'archive')]
      writeFileSync(secret, 'of this machine\n')
      const image = Buffer.alloc(40_000, 'x')
      image.set(Buffer.concat([before, Buffer.from(`${says}./x type=file mode=0644 contents=${secret}\n# `)]))
      image.write('CD001\n# ', 32_769, 'latin1')
      image.write('\n', image.length - 1, 'latin1')
      const sink = new RecordingSink()
      const reading = readArchive(one(image), sink, {
        signal: AbortSignal.timeout(60_000),
        spill: async (chunks) => {
          for await (const chunk of chunks) writeFileSync(file, chunk, { flag: 'a' })
          return { path: file, read: () => image, [Symbol.asyncDispose]: async () => rmSync(file) }
        },
      })
      await assert.rejects(reading, (error: unknown) => {
        assert.ok(error instanceof ArchiveError, String(error))
        assert.match(error.message, /^the iso9660 archive is none: bsdtar says "Archive Format: mtree,/)
        return true
      })
      assert.deepEqual(sink.result(), [])
    })
})

async function* one(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}

// ---------------------------------------------------------------------------------------------------
// Trees of extents whose nodes are used again and again.

const BLOCK = 1024
const PER_NODE = Math.floor((BLOCK - 12) / 12)
/** As many as an honest reading of so small an image is far from. */
const MAX_READS = 10_000

/** A node of a tree: `entries` equal ones, and as many as say they are there. */
function node(depth: number, count: number, entry: Buffer): Buffer {
  const head = Buffer.alloc(12)
  head.writeUInt16LE(0xf30a, 0)
  head.writeUInt16LE(count, 2)
  head.writeUInt16LE(Math.max(count, 4), 4)
  head.writeUInt16LE(depth, 6)
  return Buffer.concat([head, ...Array.from({ length: count }, () => entry)])
}

function pointTo(block: number): Buffer {
  const entry = Buffer.alloc(12)
  entry.writeUInt32LE(block, 4)
  return entry
}

function extent(logical: number, count: number): Buffer {
  const entry = Buffer.alloc(12)
  entry.writeUInt32LE(logical, 0)
  entry.writeUInt16LE(count, 4)
  entry.writeUInt32LE(1, 8)
  return entry
}

const LEAVES: { name: string; leaf: Buffer; ends: RegExp | undefined }[] = [
  { name: 'without any extent', leaf: node(0, 0, Buffer.alloc(0)), ends: /an extent tree has an empty node/ },
  {
    name: 'of extents without blocks',
    leaf: node(0, PER_NODE, extent(0, 0)),
    ends: /an extent has no blocks/,
  },
  { name: 'of extents behind the end', leaf: node(0, PER_NODE, extent(1_000_000, 1)), ends: undefined },
  { name: 'of the same extent', leaf: node(0, PER_NODE, extent(0, 1)), ends: /overlapping pieces/ },
]

describe('a tree of extents that leads to one leaf a billion times', {
  skip: await whyNot('mke2fs', 'debugfs'),
}, () => {
  for (const { name, leaf, ends } of LEAVES)
    test(`${name}: it is read or refused at once`, async () => {
      using scratch = makeScratch('astray')
      const [tree, file] = [join(scratch.path, 'tree'), join(scratch.path, 'image')]
      mkdirSync(tree)
      writeFileSync(join(tree, 'file'), Buffer.alloc(8 * BLOCK, 'x'))
      const features = '^has_journal,^metadata_csum,^inline_data'
      const made = await run((await findProgram('mke2fs'))!, [
        ...['-q', '-F', '-t', 'ext4', '-b', String(BLOCK), '-O', features, '-d', tree, file, '1M'],
      ])
      assert.equal(made.code, 0, made.stderr)
      const debugfs = async (question: string): Promise<string> =>
        (await run((await findProgram('debugfs'))!, ['-R', question, file])).stdout
      const place = /located at block (\d+), offset 0x([0-9a-f]+)/.exec(await debugfs('imap /file'))!
      const inodeAt = Number(place[1]) * BLOCK + Number.parseInt(place[2]!, 16)
      const blocks = (await debugfs('blocks /file')).trim().split(/\s+/).map(Number)
      assert.equal(blocks.length, 8)
      const image = readFileSync(file)
      // The root has room for four, and lies in the inode.
      image.set(node(5, 4, pointTo(blocks[0]!)), inodeAt + 40)
      for (const level of [4, 3, 2, 1])
        image.set(node(level, PER_NODE, pointTo(blocks[5 - level]!)), blocks[4 - level]! * BLOCK)
      image.set(leaf, blocks[4]! * BLOCK)
      let reads = 0
      const read = (position: number, length: number): Uint8Array => {
        assert.ok(++reads < MAX_READS, 'it reads on and on')
        return image.subarray(position, position + length)
      }
      const sink = new RecordingSink()
      const reading = (): void => {
        for (const _ of readExt(read, sink)); // no more than that it ends
      }
      if (ends) assert.throws(reading, ends)
      else {
        reading()
        const content = sink.result().find(({ path }) => path === 'file')
        assert.ok(content, 'the file is there')
      }
    })
})

// ---------------------------------------------------------------------------------------------------
// Directories of very many names, each as short as can be.

const LARGE_BLOCK = 64 * 1024
const PIECE = 1 << 20
const [TABLE, FIRST] = [4, 16]
const CHILD = 12

/** An image whose root is a directory of so many bytes: it names one inode again and again. */
class CrowdedImage {
  /** Bytes of the directory that were read. */
  read = 0
  readonly #start = Buffer.alloc(FIRST * LARGE_BLOCK)
  readonly #names = Buffer.alloc(LARGE_BLOCK)

  constructor(directoryBytes: number, name: string, childMode: number) {
    const superblock = this.#start.subarray(1024, 2048)
    const blocks = directoryBytes / LARGE_BLOCK
    for (const [at, value] of [
      [0, 64],
      [4, FIRST + blocks],
      [24, 6],
      [40, 64],
      [76, 1],
      [96, 0x42],
    ] as const)
      superblock.writeUInt32LE(value, at)
    superblock.writeUInt16LE(0xef53, 56)
    superblock.writeUInt16LE(128, 88)
    this.#start.writeUInt32LE(TABLE, LARGE_BLOCK + 8)
    const inode = (number: number): Buffer => this.#start.subarray(TABLE * LARGE_BLOCK + (number - 1) * 128)
    const extents = extent(0, blocks)
    extents.writeUInt32LE(FIRST, 8)
    for (const [number, mode] of [
      [2, 0o40755],
      [CHILD, childMode],
    ] as const) {
      inode(number).writeUInt16LE(mode, 0)
      inode(number).writeUInt16LE(2, 26)
    }
    inode(2).writeUInt32LE(directoryBytes, 4)
    inode(2).writeUInt32LE(0x80000, 32)
    inode(2).set(node(0, 1, extents), 40)
    for (let at = 0; at < LARGE_BLOCK; at += 12) {
      const length = LARGE_BLOCK - at < 24 ? LARGE_BLOCK - at : 12
      this.#names.writeUInt32LE(CHILD, at)
      this.#names.writeUInt16LE(length, at + 4)
      this.#names[at + 6] = name.length
      this.#names.write(name, at + 8, 'latin1')
      if (length > 12) break
    }
  }

  bytes(position: number, length: number): Buffer {
    if (position < FIRST * LARGE_BLOCK) return this.#start.subarray(position, position + length)
    // That it is all there is looked at first.
    if (length === 1) return Buffer.alloc(1)
    this.read += length
    return Buffer.concat(Array.from({ length: length / LARGE_BLOCK }, () => this.#names))
  }
}

test('names of a large directory are told as they are read, with pauses in between', () => {
  const image = new CrowdedImage(4 * PIECE, 'x', 0o10644)
  const namesInPiece = (PIECE / LARGE_BLOCK) * Math.floor(LARGE_BLOCK / 12)
  let [names, paused] = [-1, 0]
  const sink = {
    entry: () => {
      assert.equal(image.read, Math.ceil(++names / namesInPiece) * PIECE, `before name ${names}`)
    },
    data: () => {},
  }
  for (const _ of readExt((position, length) => image.bytes(position, length), sink)) {
    assert.ok(image.read - paused <= PIECE)
    paused = image.read
  }
  assert.equal(names, 4 * namesInPiece)
})

test('a large directory that names one directory again and again: the second name is refused', () => {
  const image = new CrowdedImage(4 * PIECE, 'x', 0o40755)
  const reading = (): void => {
    for (const _ of readExt((position, length) => image.bytes(position, length), new RecordingSink()));
  }
  assert.throws(reading, /the directory x is in two places/)
  assert.ok(image.read <= PIECE)
})
