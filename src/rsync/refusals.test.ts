import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ByteString } from '../lib/bytes.ts'
import { optionWords, REFUSABLE_OPTIONS, refuseOptions } from './refusals.ts'
import { parseArguments, splitArguments } from './wire/arguments.ts'

const words = (...vector: string[]): string[] => optionWords(splitArguments(vector as ByteString[]).options)

test('options: letters, names and values apart', () => {
  assert.deepEqual(
    words('--server', '--sender', '-vcze.iLsfxCIvu', '--compress-level=3', '.', '--checksum'),
    ['server', 'sender', 'checksum', 'compress', 'compress-level'],
  )
  assert.deepEqual(words('-logDtpr', '-B700', '--files\\-from=-'), [
    ...['links', 'owner', 'group', 'devices', 'specials', 'recursive'],
    'files-from',
  ])
})

for (const { sent, refused, told } of [
  { sent: ['-rc'], refused: ['checksum'], told: 'checksum (-c)' },
  { sent: ['-r', '--checksum'], refused: ['checksum'], told: 'checksum (-c)' },
  { sent: ['-rz'], refused: ['compress'], told: 'compress (-z)' },
  { sent: ['--compress-choice=zstd'], refused: ['compress'], told: 'compress (-z)' },
  { sent: ['--new-compress'], refused: ['compress'], told: 'compress (-z)' },
  { sent: ['-rX'], refused: ['acls', 'xattrs'], told: 'xattrs (-X)' },
  { sent: ['--files-from=-'], refused: ['files-from'], told: 'files-from' },
  // Whatever the configuration says, as the stock daemon.
  { sent: ['--write-devices'], refused: [], told: 'write-devices' },
  { sent: ['--copy-devices'], refused: [], told: 'copy-devices' },
  { sent: ['--log-file=/tmp/x'], refused: [], told: 'log-file' },
  { sent: ['--daemon'], refused: [], told: 'daemon' },
]) {
  test(`options: ${sent.join(' ')} is refused`, () => {
    assert.throws(() => refuseOptions(words('--server', '--sender', ...sent, '.', 'm/'), refused), {
      message: `ERROR: the server is configured to refuse --${told}`,
    })
  })
}

// Ways to write -c that the parser takes and that look like something else.
for (const [first, second] of [
  [['-\\c', '.', 'm/']],
  [['\\-c', '.', 'm/']],
  [['\\--append', '-\\c', '.', 'm/']],
  [['--min-size', '.', '-c', '.', 'm/']],
  [['--backup-dir', '.', '-c', '.', 'm/']],
  [
    ['-s', '.', '-c'],
    ['rsync', '.', 'm/'],
  ],
  [
    ['-s', '.'],
    ['.', '-c', '.', 'm/'],
  ],
  [
    ['-s', '.'],
    ['', '--temp-dir', '.', '-c', '.', 'm/'],
  ],
] as unknown as [ByteString[], ByteString[]?][]) {
  test(`options: refused where it is carried out: ${JSON.stringify([first, second])}`, () => {
    assert.ok(parseArguments(first, second).checksum)
    const { options } = splitArguments(first, second)
    assert.throws(() => refuseOptions(optionWords(options), ['checksum']), /refuse --checksum/)
  })
}

for (const sent of [
  [
    '-logDtprz',
    '--partial-dir=x',
    '--temp-dir=/tmp',
    '--super',
    '--fake-super',
    '--chmod=o-w',
    '--log-format=%i',
  ],
  ['-e.c'], // what a client can do, not -c
  ['-B1', '-@c'],
]) {
  test(`options: ${sent.join(' ')} is not refused`, () => {
    refuseOptions(words('--server', '--sender', ...sent, '.', '-c', '--checksum'), ['checksum', 'acls'])
  })
}

test('options: the names that can be refused are long names', () => {
  for (const name of REFUSABLE_OPTIONS) assert.match(name, /^[a-z][a-z-]+$/)
})
