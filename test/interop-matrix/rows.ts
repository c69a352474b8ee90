/**
 * The rows of the matrix: what a client is asked to do. Each runs at every protocol against both servers.
 *
 * A row is a line of options. Unless it says otherwise the client goes from build 1 to build 2, with
 * `-ii --stats` so that it says all that it found; its working directory is empty but for `dest/`.
 */

/** What `dest/` holds before: a build, or nothing. */
export type Basis = '1' | '2' | 'nothing'

export interface Row {
  group: string
  options: readonly string[]
  /** Paths in the module; the root of the build unless given. */
  sources: readonly string[]
  basis: Basis
  /** Without `-ii --stats`: the client says what it says by itself. */
  quiet: boolean
  /** Standard input. */
  input?: string
  /** Files in the working directory, by name. */
  files: Readonly<Record<string, string>>
  /** `old/` beside `dest/` holds this build, with all of its times and links. */
  old?: '1' | '2'
  /** Arguments of a second run that needs no server. */
  second?: readonly string[]
  /** Says all arguments itself, where the usual order is not what is asked for. */
  args?: (server: { url: string; port: number }) => readonly string[]
}

type Extra = Partial<Omit<Row, 'group' | 'options'>>

/** A row as written below: options, and what is unusual. An option that holds a space is written in a list. */
type Written = string | readonly string[] | readonly [string | readonly string[], Extra]

function isWithExtra(row: Written): row is readonly [string | readonly string[], Extra] {
  return Array.isArray(row) && row.length === 2 && typeof row[1] === 'object' && !Array.isArray(row[1])
}

function group(name: string, base: string, rows: readonly Written[]): Row[] {
  return rows.map((written) => {
    const [options, extra] = isWithExtra(written)
      ? written
      : ([written as string | readonly string[], {}] as const)
    const words = typeof options === 'string' ? options.split(' ') : options
    return {
      group: name,
      options: [...base.split(' '), ...words].filter((word) => word !== ''),
      sources: ['/root/'],
      basis: '1',
      quiet: false,
      files: {},
      ...extra,
    }
  })
}

/** How a row is called in tables and by `--row`. */
export function nameOf(row: Row): string {
  const words = [...row.options, ...(row.args ? row.args({ url: 'rsync://SERVER', port: 873 }) : [])]
  const notes = [
    ...(row.basis === '1' ? [] : [row.basis === '2' ? 'nothing to do' : 'first sync']),
    ...(row.old === undefined ? [] : [`old/ is build ${row.old}`]),
    ...(row.quiet ? ['no -ii --stats'] : []),
    ...(row.second === undefined ? [] : [`then ${row.second.join(' ')}`]),
    ...(row.args || (row.sources.length === 1 && row.sources[0] === '/root/') ? [] : row.sources),
    ...Object.values(row.files).map((text) => JSON.stringify(text)),
    ...(row.input === undefined ? [] : [JSON.stringify(row.input)]),
  ]
  const shown = words.map((word) => (/[\s"']/.test(word) ? `'${word}'` : word)).join(' ')
  return notes.length === 0 ? shown : `${shown} (${notes.join('; ')})`
}

const CODECS = ['zstd', 'lz4', 'zlibx', 'zlib', 'none']
const DIGESTS = ['xxh128', 'xxh3', 'xxh64', 'md5', 'md4', 'sha1', 'none']

const FIRST: Extra = { basis: 'nothing' }
const POLL: Extra = { basis: '2' }
const LIST: Extra = { quiet: true }

/** Only what is beneath here, where the rest of the tree adds nothing but time. */
const FILTERS: Extra = { sources: ['/root/filters'], basis: 'nothing' }
const filters = (...options: string[]): Written => [options, FILTERS]
const filterFile = (text: string, ...options: string[]): Written => [
  options,
  { ...FILTERS, files: { rules: text } },
]

const fromList = (input: string, ...options: string[]): Written => [
  ['--files-from=-', ...options],
  { input, basis: 'nothing' },
]

// biome-ignore format: a table
export const ROWS: readonly Row[] = [
  ...group('What is preserved', '', [
    '-a', ['-a', FIRST], ['-a', POLL], '-aH', ['-aH', FIRST], ['-aH', POLL], '-aA', '-aX', '-aHAX', ['-aHAX', FIRST],
    ['-aHAX', POLL], '-aHAXU', ['-aU', FIRST], '-r', ['-r', FIRST], '-rt', '-rl', '-rlpt', '-rlptg', '-rlpto', '-rlptD', '-rp', '-ro',
    '-a --no-o --no-g', '-a --no-p', '-a --no-t', '-a --no-D', '-a --no-l', '-a --no-devices', '-a --no-specials',
    '-r --devices', '-r --specials', '-aE --no-p', '-aO', '-aJ', '-aOJ', ['-d', FIRST], ['-dlt', { sources: ['/root/data/', '/root/links'] }],
    ['--old-dirs -t', { sources: ['/root/data/'] }], ['-t', { sources: ['/root/data/small', '/root/data/added'] }],
    '-a --numeric-ids', ['-aH --numeric-ids', FIRST], '-a --usermap=daemon:4242,0:0,*:4243 --groupmap=bin:4244,*:4245',
    '-a --usermap=54321:7,1-999:8', '-a --chown=daemon:bin', '-a --chown=:4242', '-a --chmod=F640,D750', '-a --chmod=u+s,go-rwx,a+X',
    ['-rp --chmod=Du=rwx,Dgo=rx,Fu=rw', FIRST], ['-a --fake-super', FIRST], ['-aAX --fake-super', FIRST], ['-a --super', FIRST],
    ['-a --atimes --open-noatime', FIRST], ['-a --copy-devices', { basis: 'nothing', sources: ['/root/data/'] }], '-a --crtimes', '-K -a', '-rltgoD',
  ]),
  ...group('Symlinks', '-rt', [
    ['-l', FIRST], ['-L', FIRST], ['-l --safe-links', FIRST], ['-l --copy-unsafe-links', FIRST], ['-l --copy-unsafe-links --safe-links', FIRST],
    ['-k', FIRST], ['-lk', FIRST], ['-l --munge-links', FIRST], '-lK', '-l --keep-dirlinks --delete', ['-L --safe-links', FIRST],
    ['-l', { sources: ['/root/links/to-directory/'], basis: 'nothing' }], ['-l', { sources: ['/root/links/to-directory'], basis: 'nothing' }],
    ['-L', { sources: ['/root/links/relative'], basis: 'nothing' }],
  ]),
  ...group('Which files are transferred', '-a', [
    '-c', '-cH', ['-c', POLL], '-I', ['-I', POLL], '--size-only', '-u', '--existing', '--ignore-existing', '--existing --ignore-existing',
    '--max-size=1000', '--min-size=1000', '--max-size=100k --min-size=1k', '--max-size=1m-1', '--modify-window=1', '--modify-window=2',
    '--modify-window=-1', '--modify-window=-1 -c', '-m', ['-m --exclude=*.c', FIRST], ['-m --include=*/ --include=*.c --exclude=*', FIRST],
    '-x', '-xx', '--no-r -d', ...['', '--force', '--delete', '-b'].map((option): Written => [option, { files: { 'dest/types/directory-to-file/in-the-way': '' } }]), '--max-alloc=100m', '--max-delete=0', '--stop-after=60', '--stop-at=2099/12/31T23:59',
    ['--no-whole-file', FIRST], '-c --size-only', '-u --modify-window=1', '-n', '-nH --delete', '-nc', ['-n -vv', { quiet: true }], ['-n', FIRST], '-nz', '-n --no-i-r',
  ]),
  ...group('How content is transferred', '-a', [
    '-W', '--no-W -B700', '-B512', '-B1024', '-B8191', '-B131072', '-W -H', '-S', ['-S', FIRST], '-S --inplace', '--inplace', '--inplace -B1000',
    '--inplace -H --delete', '--inplace -W', '--append', '--append-verify', '--append -c', '--partial', '--partial-dir=.partial', '--delay-updates',
    '--delay-updates --delete', '-P', ...['--fuzzy', '-yy --delete-delay', '-y --size-only', '-y -z'].map((option): Written => [option, { sources: ['/root/alike'] }]), '--preallocate', '--temp-dir=.', '-T .. --delay-updates',
    '--fsync', '--bwlimit=100m', '--timeout=30', '--contimeout=30', '--sockopts=TCP_NODELAY', '--blocking-io', '--outbuf=L', '--log-file=log', '--no-motd',
    '--write-devices --no-D', '-c -B2000', '--checksum-seed=1', '--checksum-seed=2147483647 -c', '--inc-recursive', '--no-inc-recursive', '-8 -h', '-hhh',
  ]),
  ...group('Compression', '-a', [
    '-z', ['-z', FIRST], '-zz', '-z --old-compress', '--new-compress', '-zH --delete', '-z -W', '-z -c', '-z --inplace', '-z --skip-compress=', '-z --skip-compress=random/1.0.bin',
    ...CODECS.map((codec) => `-z --zc=${codec}`), ...CODECS.map((codec): Written => [`-z --zc=${codec}`, FIRST]),
    ...[1, 6, 9].flatMap((level) => [`-z --zc=zlib --zl=${level}`, `-z --zc=zlibx --zl=${level}`]), '--zl=0 -z', '-z --zl=9',
    ...[-5, 1, 3, 19, 22].map((level) => `-z --zc=zstd --zl=${level}`), '-z --zc=zstd -B700', '-z --zc=lz4 -B700', '-z --zc=zlib -B700', '-z --zc=zlibx -B700',
    '-z --zc=zstd -W', '-z --zc=lz4 -W', '-z --zc=zstd --append', '-z --zc=zlib --inplace -B1000', '-z --zc=nonsense',
  ]),
  ...group('Digests', '-a', [
    ...DIGESTS.flatMap((digest) => [`--cc=${digest}`, `-c --cc=${digest}`]), '--cc=md5,xxh64', '-c --cc=xxh3,md4', '-c --cc=sha1,md5', '--cc=none,md5', '--cc=md5,none',
    '-c --cc=auto', '--cc=xxhash', '--cc=nonsense', '-z --zc=zlib --cc=md4', '-z --zc=zstd --cc=xxh64 -c', '-z --zc=lz4 --cc=sha1', '-z --zc=zlibx --cc=xxh3',
    '--cc=md4 --checksum-seed=77', '-I --cc=sha1 -B700', '-I --cc=xxh128 -B700', '-I --cc=md5 -B700',
  ]),
  ...group('Deletion', '-a', [
    '--delete', '--del', '--delete-before', '--delete-during', '--delete-delay', '--delete-after', '--delete --delete-excluded --exclude=*.tmp --exclude=/dirs',
    '--delete --exclude=/data', '--delete --max-delete=3', '--delete --max-delete=0', '--delete --force', '--delete --ignore-errors', '--delete -n',
    ['--delete', '--filter=P removed'], ['--delete', '--filter=R /data/**', '--filter=P *'], ['--delete', '--filter=-p removed', '--filter=H added'],
    ['--delete --delete-excluded', { files: {}, sources: ['/root/data/'] }], '--delete-after -F', '--delete -C', ['--delete -d', { sources: ['/root/data/'] }],
    ['--delete', { sources: ['/root/data/', '/root/dirs/'] }], ['--delete -R', { sources: ['/root/./data', '/root/./hard'] }], '--delete -b', '--delete -b --suffix=.old',
    '--delete -b --backup-dir=../backup', '--delete -b --backup-dir=kept', '-b', '-b --suffix=~~', '-b --backup-dir=../backup -H', '-b --inplace',
    ['--delete', { sources: ['/root/nothing/'] }], ['--delete', { sources: ['/root/nothing/', '/root/data/'] }],
    ['--delete-missing-args', { sources: ['/root/data/removed', '/root/data/small'] }], ['--ignore-missing-args', { sources: ['/root/nothing', '/root/data/small'] }],
  ]),
  ...group('Other directories to compare with', '-a', [
    ['--compare-dest=../old', { basis: 'nothing', old: '1' }], ['--copy-dest=../old', { basis: 'nothing', old: '1' }], ['--link-dest=../old', { basis: 'nothing', old: '1' }],
    ['--compare-dest=../old', { basis: 'nothing', old: '2' }], ['--copy-dest=../old', { basis: 'nothing', old: '2' }], ['--link-dest=../old', { basis: 'nothing', old: '2' }],
    ['-H --link-dest=../old', { basis: 'nothing', old: '1' }], ['-H --link-dest=../old', { basis: 'nothing', old: '2' }], ['-HAX --link-dest=../old', { basis: 'nothing', old: '2' }],
    ['-c --link-dest=../old --delete', { old: '2' }], ['-y --copy-dest=../old', { basis: 'nothing', old: '1' }], ['-yy --compare-dest=../old', { basis: 'nothing', old: '1' }],
    ['-c --compare-dest=../old', { basis: 'nothing', old: '1' }], ['-z --copy-dest=../old', { old: '2' }], ['--link-dest=../missing', { basis: 'nothing' }],
    ['--link-dest=../old --compare-dest=../old', { basis: 'nothing', old: '1' }],
  ]),
  ...group('Filter rules', '-rt', [
    filters('--exclude=*.tmp'), filters('--exclude=a*'), filters('--exclude=/filters/a.c'), filters('--exclude=sub/'), filters('--exclude=sub/deep'), filters('--exclude=filters/*/a.c'),
    filters('--exclude=**/a.c'), filters('--exclude=sub/**'), filters('--exclude=sub/***'), filters('--exclude=/filters/**/core'), filters('--exclude=?.c'),
    filters('--exclude=[ab].c'), filters('--exclude=[!a].*'), filters('--exclude=[^a].*'), filters('--exclude=[[:upper:]]*'), filters('--exclude=[a-c].[co]'), filters('--exclude=\\[x]'),
    filters('--exclude=[x]'), filters('--exclude=[]x]'), filters('--exclude=a.\\*'), filters('--exclude=x'), filters('--exclude=*/x'), filters('--exclude=core/'),
    filters('--include=a.c', '--exclude=*.c'), filters('--include=*/', '--include=*.c', '--exclude=*'), filters('--include=/filters/', '--include=/filters/sub/***', '--exclude=*'),
    filters('-f', '- *.tmp'), filters('-f', '+ a.c', '-f', '- *.c'), filters('-f', 'H *.tmp', '-f', 'P *.c', '-f', 'R *.o'), filters('-f', 'S a.c', '-f', 'H *.c'), filters('-f', 'hide *.c'),
    filters('-f', '-! */', '-f', '- sub'), filters('-f', '-/ /root/filters/sub'), filters('-f', '-s *.tmp'), filters('-f', '-r *.tmp'), filters('-f', '-sr *.tmp'), filters('-f', '-p *.tmp'), filters('-f', '-x user.*'),
    filters('-f', '- *.c', '-f', '!'), filters('-f', '-C'), filters('-C'), filters('-C', '--include=*.o'), filters('-C', '-f', '+ core'), filters('-F'), filters('-FF'), filters('-F', '-F', '--exclude=*.bak'),
    filters('-f', ': .rsync-filter'), filters('-f', ':e .rsync-filter'), filters('-f', ':n .rsync-filter'), filters('-f', ':- .cvsignore'), filters('-f', ':w- .cvsignore'), filters('-f', ':C'), filters('-f', ':n- .cvsignore'),
    filters('-f', ':/ .rsync-filter'), filters('-f', ':s .rsync-filter'), filters('-f', ':p .rsync-filter'), filters('-f', 'dir-merge,- .cvsignore'), filters('-f', 'dir-merge /filters/sub/.rsync-filter'), filters('-f', ':+ .cvsignore', '--exclude=*'),
    filters('-f', ': /.rsync-filter'), filters('-f', ':en .rsync-filter', '--exclude=x'), filters('--exclude=*.[ct]*', '--include=nothing'), filters('--exclude=*.c', '--delete-excluded', '--delete'),
    filterFile('# comment\n; comment\n\n*.tmp\n+ a.c\n- *.c\n', '--exclude-from=rules'), filterFile('*.c\n', '--include-from=rules', '--exclude=*.o', '--exclude=*.tmp'), filterFile('+ a.c\n- *.c\n: .rsync-filter\n', '-f', '. rules'),
    filterFile('*.c *.o\n', '-f', '.w- rules'), filterFile('*.c\0*.o\0', '-0', '--exclude-from=rules'), filterFile('*.log\r\n*.c\r\n', '--exclude-from=rules'), filterFile('hide a.*\nshow *\n', '--filter=merge rules'),
    filterFile('', '--exclude-from=rules'), filters('--exclude-from=missing'), filters('-f', 'nonsense rule'), filters('-f', '-n x'), filters('-f', 'P *.c', '--delete'), filters('-rR', '--exclude=/root/filters/sub'),
    [['-f', '- *.c', '--delete'], { sources: ['/root/'], basis: '1' }], [['-F', '--delete', '-m'], { sources: ['/root/'], basis: '1' }], [['-C', '--delete'], { sources: ['/root/filters'], basis: '1' }],
    [['-aX', '-f', '-x user.same', '-f', '-x trusted.*'], FIRST], [['--exclude=new*line'], { sources: ['/root/names'], basis: 'nothing' }], [['--exclude=caf?'], { sources: ['/root/names'], basis: 'nothing' }],
    [['--exclude=back\\\\slash'], { sources: ['/root/names'], basis: 'nothing' }], [['--exclude=*\\*', '--exclude=-*'], { sources: ['/root/names'], basis: 'nothing' }],
  ]),
  ...group('What is asked for', '-a', [
    ['', { sources: ['/root'], basis: 'nothing' }], ['', { sources: ['/'], basis: 'nothing' }], ['', { sources: [''], basis: 'nothing' }], ['', { sources: ['/root/data'] }], ['', { sources: ['/root/data/small'] }],
    ['', { sources: ['/root/data/small', '/root/hard/'] }], ['', { sources: ['/root/data/*'] }], ['', { sources: ['/root/names/*a*'] }], ['', { sources: ['/root/*/s[a-m]*'] }], ['', { sources: ['/root/names/\\*'] }],
    ['', { sources: ['/root/names/with space', '/root/names/back\\slash'] }], ['', { sources: ['/root/nothing'] }], ['', { sources: ['/root/nothing', '/root/data/small'] }], ['', { sources: ['/root/data/small/'] }],
    ['', { sources: ['/root/no*thing'] }], ['', { sources: ['/../../etc/passwd'] }], ['', { sources: ['/root/data/../hard/'] }], ['', { sources: ['/root//data/./'] }], ['', { sources: ['/root/data', '/root/data/'] }],
    ['', { sources: ['/root/links/to-directory/empty'] }], ['-s', { sources: ['/root/names/with space', '/root/names/a*'] }], ['--old-args', { sources: ['/root/data/small', '/root/data/t*'] }], ['-s', { sources: ['/root/names/'] }],
    ['-R', { sources: ['/root/data/small'] }], ['-R', { sources: ['/root/./data/small'] }], ['-R', { sources: ['/root/dirs/level-1/./level-2'] }], ['-R --no-implied-dirs', { sources: ['/root/dirs/level-1/level-2'] }],
    ['-R --no-i-r', { sources: ['/root/./data', '/root/hard'] }], ['-R', { sources: ['/root/links/to-directory/private'] }], ['-HR', { sources: ['/root/./hard/sub', '/root/./hard/original'] }], ['--no-R', { sources: ['/root/./data/small'] }],
    ['--mkpath', { sources: ['/root/data/small'] }], ['--iconv=utf-8,utf-8'], ['--iconv=utf-8,latin1'], ['--iconv=.'], ['--no-iconv'], ['--iconv=-'], ['--trust-sender'], ['--remote-option=-v'], ['-M--bwlimit=50m'],
    fromList('data/small\nhard/sub\n'), fromList('data/small\nhard/sub\n', '-r'), fromList('data/small\nhard/sub/\nlinks/added\n'), fromList('data/small\0names/new\nline\0', '-0'), fromList('/data/small\n./data/./text\n../data/added\n'),
    fromList('data/small\nnothing\nno/thing\n'), fromList('data/small\nnothing\n', '--ignore-missing-args'), fromList('data/small\nnothing\n', '--delete-missing-args'), fromList('data/small\ndata/added\n', '--no-R'), fromList('data/*\n'),
    fromList('; comment\n# comment\n\ndata/small\r\ndata/text\n'), fromList('data/small\nhard\n', '-s', '-r'), fromList('dirs/level-1/level-2\n', '--no-implied-dirs'), fromList('', '-r'), fromList('hard/original\nhard/sub/third\n', '-H'),
    fromList('caf\xc3\xa9\ndata/small\n', '--iconv=utf-8,utf-8'), fromList('data/\nlinks/to-directory/empty\n'), fromList('.\n', '-r'), fromList('data/small\ndata/small\ndata/./small\n'), fromList('data\n', '-r', '--delete', '--exclude=added'),
    ['--files-from=:/root/list', FIRST], ['--files-from=:/root/list -r', FIRST], ['--files-from=:/root/list0 --from0', FIRST], ['--files-from=:/root/nothing', FIRST], ['-s --files-from=:/root/list', FIRST], ['--files-from=:list', FIRST],
    [['--files-from=names'], { basis: 'nothing', files: { names: 'data/small\nlinks/relative\n' } }],
    ['', { args: ({ port }) => [`--port=${port}`, '127.0.0.1::build-2/root/data/small', '::build-2/root/hard', 'dest/'] }], ['', { args: ({ port }) => ['--old-args', `--port=${port}`, '127.0.0.1::build-2/root/data/small build-2/root/hard', 'dest/'] }],
    ['', { args: ({ url }) => [`${url}/build-2/root/data/small`, 'dest/small-too'] }], ['', { args: ({ url }) => [`${url}/build-2/root/data/small`, 'dest/a/b/c'] }], ['', { args: ({ url }) => ['--mkpath', `${url}/build-2/root/data/small`, 'dest/a/b/c'] }],
  ]),
  ...group('Lists and words', '', [
    ['-r --list-only', LIST], ['-a --list-only', LIST], ['-d --list-only', LIST], ['', { quiet: true, args: ({ url }) => [`${url}/build-2/`] }], ['', { quiet: true, args: ({ url }) => [`${url}/build-2/root/data/`] }],
    ['', { quiet: true, args: ({ url }) => ['-r', `${url}/build-2/root/names/`] }], ['-ac --list-only', LIST], ['-aU --list-only', LIST], ['-8 -a --list-only', LIST], ['-r --list-only --exclude=*.c', LIST], ['-aH --list-only', LIST],
    ['-a --out-format=%i_%n%L', { quiet: true }], ['-a --out-format=%o_%f_%l_%C_%M_%U:%G_%B', { quiet: true, sources: ['/root/data/small', '/root/data/added', '/root/owners/wide'] }], ['-a -i', { quiet: true }], ['-av', { quiet: true }], ['-avv', { quiet: true }], ['-aq', { quiet: true }], ['-a', { quiet: true }],
    ['-a --stats', { quiet: true }], ['-a --info=name2,del,skip,remove,symsafe,nonreg', { quiet: true }], ['-a --info=none', { quiet: true }], ['-a --info=misc2,stats2', { quiet: true }], ['-aHi --delete --info=backup,copy', { quiet: true, }],
    ['-a --only-write-batch=batch', { second: ['-aii', '--read-batch=batch', 'dest/'] }], ['-aH --write-batch=batch', { second: ['-aHii', '--read-batch=batch', 'dest/'] }], 
    ['-a --progress', { quiet: true, sources: ['/root/hard'] }], ['-a --msgs2stderr', {}], ['-a --stderr=client', {}], ['-a --stderr=all -v', {}], ['-a --ipv4', {}], ['-a --8-bit-output', {}],
  ]),
  ...group('Refused', '-a', [
    ['--remove-source-files', FIRST], ['--remove-sent-files', FIRST], ['', { files: { upload: 'new\n' }, args: ({ url }) => ['upload', `${url}/build-2/root/`] }], ['', { files: { upload: 'new\n' }, args: ({ url }) => ['--delete', './', `${url}/build-2/`] }],
    ['', { args: ({ url }) => [`${url}/nothing-of-the-kind/`, 'dest/'] }], ['-M--nonsense', {}], ['-M--log-file=/tmp/written-by-nobody', {}], ['-M--write-devices', {}],
    ['-M--copy-devices', {}], ['--iconv=nonsense', {}], ['-M--checksum-choice=nonsense', {}], ['-M--remove-source-files', {}], ['-M--daemon', {}], ['-M--config=/etc/passwd', {}],
  ]),
]
