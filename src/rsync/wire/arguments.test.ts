import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ByteString } from '../../lib/bytes.ts'
import { announcesSecludedArguments, parseArguments, type TransferOptions } from './arguments.ts'

const parse = (...vector: string[]): TransferOptions => parseArguments(vector as ByteString[])
const secluded = (first: string[], second: string[]): TransferOptions =>
  parseArguments(first as ByteString[], second as ByteString[])

/** What each argument says, and nothing else: all other options stay as without it. */
const OPTIONS: readonly { args: string[]; says: Partial<TransferOptions> }[] = [
  { args: [], says: {} },
  { args: ['--server'], says: {} },
  { args: ['--sender'], says: { sender: true } },
  // Clusters: docs/rsync-protocol.md, section 2.4.
  { args: ['-r'], says: { recurse: true } },
  { args: ['-d'], says: { dirs: true } },
  { args: ['-n'], says: { dryRun: true } },
  { args: ['-l'], says: { links: true } },
  { args: ['-L'], says: { copyLinks: true } },
  { args: ['-k'], says: { copyDirlinks: true } },
  { args: ['-H'], says: { hardLinks: true } },
  { args: ['-o'], says: { owner: true } },
  { args: ['-g'], says: { group: true } },
  { args: ['-D'], says: { devices: true, specials: true } },
  { args: ['-U'], says: { atimes: true } },
  { args: ['-N'], says: { crtimes: true } },
  { args: ['-A'], says: { acls: true } },
  { args: ['-X'], says: { xattrs: 1 } },
  { args: ['-XX'], says: { xattrs: 2 } },
  { args: ['-XXX'], says: { xattrs: 2 } },
  { args: ['-c'], says: { checksum: true } },
  { args: ['-C'], says: { cvsExclude: true } },
  { args: ['-R'], says: { relative: true } },
  { args: ['-b'], says: { backup: true } },
  { args: ['-z'], says: { compress: true } },
  { args: ['-vvqutpEWISxx'], says: {} },
  { args: ['-KmOJy'], says: {} },
  {
    args: ['-logDtpre.iLsfxCIvu'],
    says: {
      links: true,
      owner: true,
      group: true,
      devices: true,
      specials: true,
      recurse: true,
      info: '.iLsfxCIvu',
    },
  },
  { args: ['-re'], says: { recurse: true, info: '' } },
  { args: ['-e31.14iLsf'], says: { info: '31.14iLsf' } },
  { args: ['-B70000'], says: {} },
  { args: ['-@1'], says: {} },
  { args: ['-'], says: {} },
  // Long options: section 2.7.
  { args: ['--list-only'], says: { listOnly: true, dirs: true } },
  { args: ['-r', '--list-only'], says: { recurse: true, listOnly: true } },
  { args: ['--compress-level=9'], says: { compress: true, compressLevel: 9 } },
  { args: ['--compress-level=-5'], says: { compress: true, compressLevel: -5 } },
  { args: ['--compress-level=999999999'], says: { compress: true, compressLevel: 999_999_999 } },
  { args: ['--compress-level=-131072'], says: { compress: true, compressLevel: -131_072 } },
  { args: ['--skip-compress=gz/mp[34]'], says: { skipCompress: 'gz/mp[34]' as ByteString } },
  { args: ['--skip-compress='], says: { skipCompress: '' as ByteString } },
  { args: ['--new-compress'], says: { compress: true, compressChoice: 'zlibx' } },
  { args: ['-z', '--old-compress'], says: { compress: true, compressChoice: 'zlib' } },
  { args: ['--compress-choice=zstd'], says: { compress: true, compressChoice: 'zstd' } },
  { args: ['--compress-choice=none'], says: { compress: false, compressChoice: 'none' } },
  { args: ['--checksum-choice=md5,xxh64'], says: { checksumChoice: 'md5,xxh64' } },
  { args: ['--checksum-seed=1'], says: { checksumSeed: 1 } },
  { args: ['--checksum-seed=-7'], says: { checksumSeed: -7 } },
  { args: ['--checksum-seed=4294967295'], says: { checksumSeed: -1 } },
  { args: ['-D', '--no-specials'], says: { devices: true, specials: false } },
  { args: ['--specials'], says: { specials: true } },
  { args: ['--timeout=30'], says: { timeout: 30 } },
  { args: ['--bwlimit=10'], says: { bandwidth: 10240 } },
  { args: ['--bwlimit=0'], says: { bandwidth: 0 } },
  { args: ['--bwlimit='], says: { bandwidth: 0 } },
  { args: ['--bwlimit=50m'], says: { bandwidth: 50 * 1024 * 1024 } },
  { args: ['--bwlimit=50M'], says: { bandwidth: 50 * 1024 * 1024 } },
  { args: ['--bwlimit=1.5m'], says: { bandwidth: 1.5 * 1024 * 1024 } },
  { args: ['--bwlimit=10KB'], says: { bandwidth: 10_000 } },
  { args: ['--bwlimit=10MiB'], says: { bandwidth: 10 * 1024 * 1024 } },
  { args: ['--bwlimit=.5'], says: { bandwidth: 512 } },
  { args: ['--bwlimit=600b'], says: { bandwidth: 600 } },
  { args: ['--bwlimit=2g'], says: { bandwidth: 2 ** 31 } },
  { args: ['--bwlimit=999999999999t'], says: { bandwidth: Number.MAX_SAFE_INTEGER } },
  { args: ['--ignore-missing-args'], says: { missingArgs: 'ignore' } },
  { args: ['--delete-missing-args'], says: { missingArgs: 'delete' } },
  { args: ['--ignore-errors'], says: { ignoreErrors: true } },
  { args: ['--copy-unsafe-links'], says: { copyUnsafeLinks: true } },
  { args: ['--numeric-ids'], says: { numericIds: true } },
  { args: ['--append'], says: { append: 1 } },
  { args: ['--append', '--append'], says: { append: 2 } },
  { args: ['--append', '--append', '--append'], says: { append: 2 } },
  { args: ['--inplace'], says: { inplace: true } },
  { args: ['--write-devices'], says: { inplace: true } },
  {
    args: ['--files-from=-', '--from0'],
    says: { filesFrom: '-' as ByteString, dirs: true, from0: true, relative: true },
  },
  {
    args: ['--files-from', 'm/list', '--from0'],
    says: { filesFrom: 'm/list' as ByteString, dirs: true, from0: true, relative: true },
  },
  { args: ['--files-from=-', '--no-relative'], says: { filesFrom: '-' as ByteString, dirs: true } },
  { args: ['--no-relative', '--files-from=-'], says: { filesFrom: '-' as ByteString, dirs: true } },
  { args: ['--relative'], says: { relative: true } },
  { args: ['-R', '--no-relative'], says: {} },
  { args: ['--no-implied-dirs'], says: { impliedDirs: false } },
  { args: ['--remove-source-files'], says: { removeSource: true } },
  { args: ['--remove-sent-files'], says: { removeSource: true } },
  { args: ['--copy-devices'], says: { copyDevices: true } },
  { args: ['--iconv=UTF-8'], says: { iconv: 'UTF-8' } },
  { args: ['--iconv=.'], says: { iconv: '.' } },
  // What concerns the client alone, known or not.
  {
    args: ['--safe-links', '--open-noatime', '--use-qsort', '--info=progress2', '--debug=all', '--suffix=~'],
    says: {},
  },
  {
    args: ['--max-alloc=1G', '--msgs2stderr', '--no-msgs2stderr', '--modify-window=1'],
    says: {},
  },
  { args: ['--an-option-of-tomorrow', '--another=with-r-in-it'], says: {} },
  // Values of their own are no options, whatever they look like.
  { args: ['--backup-dir', '--remove-source-files'], says: {} },
  { args: ['--backup-dir', '-r', '-l'], says: { links: true } },
  { args: ['--backup-dir', '.', '-l'], says: { links: true } },
  { args: ['--backup-dir=x', '-l'], says: { links: true } },
  { args: ['--partial-dir', '-r', '--temp-dir', '-r', '--link-dest', '-r', '--max-size', '-r'], says: {} },
  // Escapes: section 2.2.
  { args: ['--iconv=a\\*b\\\\c\\ d'], says: { iconv: 'a*b\\c d' } },
  {
    args: ['--files-from', 'm/sp\\ ace'],
    says: { filesFrom: 'm/sp ace' as ByteString, dirs: true, relative: true },
  },
]
const NOTHING = parse()
for (const { args, says } of OPTIONS) {
  test(`options: ${args.join(' ')}`, () => {
    assert.deepEqual(parse(...args, '.', 'm/'), { ...NOTHING, paths: ['m/'], ...says })
    assert.deepEqual(parse(...args), { ...NOTHING, ...says }, 'without a dot and paths')
  })
}

const PATHS: readonly { args: string[]; paths: string[] }[] = [
  { args: ['.'], paths: [] },
  { args: ['.', 'm/dir', 'm/sp ace'], paths: ['m/dir', 'm/sp ace'] },
  { args: ['.', 'm/back\\slash', 'm/br\\[a\\]ck'], paths: ['m/back\\slash', 'm/br\\[a\\]ck'] },
  { args: ['.', '-r', '--sender'], paths: ['-r', '--sender'] },
  { args: ['.', '.', '.'], paths: ['.', '.'] },
]
for (const { args, paths } of PATHS) {
  test(`paths: ${JSON.stringify(args)}`, () => assert.deepEqual(parse('--server', ...args).paths, paths))
}

test('the vector of a stock client', () => {
  const options = parse('--server', '--sender', '-vlogDtpre.iLsfxCIvu', '.', 'm/dir')
  assert.deepEqual(options.paths, ['m/dir'])
  assert.ok(options.sender && options.recurse && options.links)
  assert.ok(Object.isFrozen(options))
})

// Section 2.3.
const SECLUDED: readonly { cluster: string; announces: boolean }[] = [
  { cluster: '-s', announces: true },
  { cluster: '-vrse.iLfxCIvu', announces: true },
  { cluster: '-re.iLsfxCIvu', announces: false },
  { cluster: '-r', announces: false },
  { cluster: '-', announces: false },
  { cluster: '--secluded', announces: false },
]
for (const { cluster, announces } of SECLUDED) {
  test(`secluded: ${cluster} ${announces ? 'announces' : 'does not announce'} a second vector`, () => {
    const vector = ['--server', '--sender', cluster, '--iconv=s'] as ByteString[]
    assert.equal(announcesSecludedArguments(vector), announces)
  })
}

test('secluded: both rounds together, the second not unescaped', () => {
  const first = ['--server', '--sender', '-lse.LsfxCIvu', '--iconv=.']
  const second = ['rsync', '--files-from', 'm/a\\ b', '--numeric-ids', '.', 'm/a b', 'm/c\\d']
  const options = secluded(first, second)
  assert.ok(options.sender && options.links && options.numericIds && options.secluded)
  assert.equal(options.iconv, '.')
  assert.equal(options.filesFrom, 'm/a\\ b')
  assert.deepEqual(options.paths, ['m/a b', 'm/c\\d'])
})

test('secluded: the "(null)" of current clients forced below 30 is nothing', () => {
  const options = secluded(['--server', '--sender', '-ls', '(null)', '.', 'm/x'], ['rsync', '.', 'm/y'])
  assert.deepEqual(options.paths, ['m/y'])
})

test('secluded: a program name that looks like an option is none', () => {
  assert.equal(secluded(['--server', '-s'], ['--sender', '.', 'm/']).sender, false)
})

const NEVER_RIGHT = [
  '--timeout=x',
  '--timeout=',
  '--timeout',
  '--timeout=-1',
  '--timeout=1e3',
  '--timeout=2147483648',
  '--bwlimit',
  '--bwlimit=.',
  '--bwlimit=1.5x',
  '--bwlimit=-1',
  '--bwlimit=511b',
  '--bwlimit=1e3',
  '--bwlimit=m1',
  '--bwlimit=m',
  '--compress-level=fast',
  '--checksum-seed=4294967296',
  '--checksum-seed=99999999999999999999',
]
for (const argument of NEVER_RIGHT) {
  test(`never right: ${argument}`, () => {
    const { problem, ...rest } = parse(argument, '-l', '.', 'm/')
    assert.match(problem!, new RegExp(`^${argument.split('=')[0]} needs (?:a whole number|0 or a rate)`))
    assert.ok(rest.links && rest.paths.length === 1, 'the rest is read: the setup depends on it')
  })
}

test('never right: the first problem is the one that is told', () => {
  assert.match(parse('--timeout=x', '--bwlimit=y').problem!, /--timeout/)
})

test('a bad value is shown so that it can do no harm', () => {
  assert.ok(parse('--timeout=\x1b[2J\n').problem!.includes('\\x1b[2J\\n'))
})

test('peer chooses compression threads: it does not', () => {
  for (const threads of ['1', '64', '999999999', 'x']) {
    const options = parse('-z', '--compress-choice=zstd', `--compress-threads=${threads}`, '.', 'm/')
    assert.deepEqual(options, parse('-z', '--compress-choice=zstd', '.', 'm/'))
  }
})
