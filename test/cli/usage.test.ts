/** What the command line says to those who get it wrong, and how it ends. */
import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { makeScratch } from '../support/scratch.ts'
import { upserv } from '../support/upserv.ts'

const CONCURRENCY = 2

interface Case {
  name: string
  args: readonly string[]
  /** Of a configuration file, named with --config. */
  config?: string
  env?: NodeJS.ProcessEnv
  code: number
  says: RegExp
}

const CASES: Case[] = [
  { name: 'nothing at all', args: [], code: 64, says: /Usage: upserv/ },
  { name: 'an unknown command', args: ['sevre'], code: 64, says: /unknown command 'sevre'\n.*serve/s },
  {
    name: 'an unknown flag',
    args: ['serve', '--budgett', '1GB'],
    code: 64,
    says: /unknown option '--budgett'\n.*--budget/s,
  },
  { name: 'a missing argument', args: ['fetch'], code: 64, says: /missing required argument 'id'/ },
  { name: 'a missing option', args: ['import', 'file'], code: 64, says: /required option '--as <id>'/ },
  { name: 'too many arguments', args: ['pin', '1', '2'], code: 64, says: /too many arguments/ },
  {
    name: 'a size that is none',
    args: ['serve', '--budget', 'lots'],
    code: 64,
    says: /--budget: "lots" is no size, such as 16GB/,
  },
  {
    name: 'a negative size',
    args: ['serve', '--budget=-5GB'],
    code: 64,
    says: /--budget: "-5GB" is no size/,
  },
  {
    name: 'an address that is none',
    args: ['serve', '--rsync', 'nowhere'],
    code: 64,
    says: /--rsync: "nowhere" is no address/,
  },
  {
    name: 'a port out of range',
    args: ['serve', '--rsync', '127.0.0.1:99999'],
    code: 64,
    says: /--rsync: "127\.0\.0\.1:99999" is no address/,
  },
  {
    name: 'a host that is not ours',
    args: ['serve', '--rsync', '192.0.2.1:0'],
    code: 78,
    says: /192\.0\.2\.1:0/,
  },
  {
    name: 'an HTTP address that is none',
    args: ['serve', '--http', '1.2.3.4'],
    code: 64,
    says: /--http: "1\.2\.3\.4" is no address/,
  },
  {
    name: 'a source that is no URL',
    args: ['serve', '--source', 'mirror.example.org/{build}'],
    code: 78,
    says: /mirror\.example\.org/,
  },
  {
    name: 'a source that does not name the build',
    args: ['serve', '--source', 'http://h/os.tar'],
    code: 64,
    says: /\{build\}/,
  },
  {
    name: 'a source of an unknown kind',
    args: ['serve', '--source', 'gopher://h/{build}'],
    code: 78,
    says: /gopher/,
  },
  {
    name: 'a configuration file that is not there',
    args: ['list', '--config', '/no/such/file'],
    code: 78,
    says: /\/no\/such\/file/,
  },
  {
    name: 'the same, by environment',
    args: ['list'],
    env: { UPSERV_CONFIG: '/no/such/file' },
    code: 78,
    says: /\/no\/such\/file/,
  },
  {
    name: 'an unknown key',
    args: ['serve'],
    config: 'bugdet = "1GB"\n',
    code: 78,
    says: /upserv\.toml: unknown key "bugdet"; did you mean "budget"\?/,
  },
  {
    name: 'an unknown key of a section',
    args: ['serve'],
    config: '[rsync]\nlissten = ":1"\n',
    code: 78,
    says: /unknown key "rsync\.lissten"; did you mean "listen"\?/,
  },
  {
    name: 'a key of a source',
    args: ['serve'],
    config: '[[source]]\nname = "a"\nurl = "http://h/{build}"\nchecksumm = "x"\n',
    code: 78,
    says: /unknown key "source\[0\]\.checksumm"; did you mean "checksum"\?/,
  },
  {
    name: 'a bad size in the file',
    args: ['serve'],
    config: 'budget = "many"\n',
    code: 78,
    says: /budget: "many" is no size/,
  },
  {
    name: 'a bad address in the file',
    args: ['serve'],
    config: '[http]\nlisten = "x"\n',
    code: 78,
    says: /http\.listen.*no address/,
  },
  {
    name: 'a value of the wrong kind',
    args: ['serve'],
    config: 'budget = true\n',
    code: 78,
    says: /upserv\.toml: budget: a size is text such as/,
  },
  {
    name: 'a channel whose build is a number',
    args: ['serve'],
    config: '[channels]\nstable = 802\n',
    code: 78,
    says: /upserv\.toml: channels\.stable: the id of a build is text such as "802"/,
  },
  {
    name: 'a channel whose build is no id',
    args: ['serve'],
    config: '[channels]\nbeta = "1"\nstable = "../802"\n',
    code: 78,
    says: /upserv\.toml: channels\.stable: "\.\.\/802" is no build id\. An id has/,
  },
  {
    name: 'a channel with a name that is none',
    args: ['serve'],
    config: '[channels]\n"a b" = "802"\n',
    code: 78,
    says: /upserv\.toml: channels\.a b: "a b" is no name for a channel\. An id has/,
  },
  {
    name: 'channels that are none',
    args: ['serve'],
    config: 'channels = "802"\n',
    code: 78,
    says: /upserv\.toml: channels: /,
  },
  {
    name: 'an unknown table',
    args: ['serve'],
    config: '[chanels]\nstable = "802"\n',
    code: 78,
    says: /unknown key "chanels"; did you mean "channels"\?/,
  },
  { name: 'no TOML', args: ['serve'], config: 'budget: 16GB\n', code: 78, says: /upserv\.toml:1:\d+: / },
  {
    name: 'a pattern that is none',
    args: ['serve'],
    config: '[[source]]\nname = "a"\nbuilds = "(["\nurl = "http://h/{build}"\n',
    code: 78,
    says: /\(\[/,
  },
]

describe('the command line says what is wrong', { concurrency: CONCURRENCY }, () => {
  for (const { name, args, config, env, code, says } of CASES) {
    test(name, async (t) => {
      using scratch = makeScratch('usage')
      const file = join(scratch.path, 'upserv.toml')
      if (config !== undefined) writeFileSync(file, config)
      const all = [...args, ...(config === undefined ? [] : ['--config', file])]
      const result = await upserv(all, {
        env: { ...process.env, UPSERV_DIR: join(scratch.path, 'data'), ...env },
        timeoutMs: 20_000,
      })
      t.diagnostic(result.stderr.split('\n').slice(0, 2).join(' | '))
      assert.equal(result.code, code, result.stdout + result.stderr)
      assert.match(result.stderr, says)
      assert.equal(result.stdout, '')
      assert.doesNotMatch(result.stderr, /\n\s+at |internal error|\bundefined\b|\[object/)
    })
  }

  test('--help and --version are no errors', async () => {
    for (const args of [['--help'], ['serve', '--help'], ['--version'], ['help', 'import']]) {
      const { code, stdout, stderr } = await upserv(args)
      assert.deepEqual([code, stderr], [0, ''], args.join(' '))
      assert.ok(stdout.length > 3)
    }
  })
})

describe('the data directory', { concurrency: CONCURRENCY }, () => {
  test('UPSERV_DIR names it, and --data goes before', async () => {
    using scratch = makeScratch('usage')
    const [first, second] = [join(scratch.path, 'first'), join(scratch.path, 'second')]
    const env = { ...process.env, UPSERV_DIR: first }
    const dataDir = async (...args: string[]): Promise<string> =>
      JSON.parse((await upserv(['status', '--json', ...args], { env })).stdout).dataDir
    assert.equal(await dataDir(), first)
    assert.equal(await dataDir('--data', second), second)
  })

  test("one that holds somebody else's files is left alone", async () => {
    using scratch = makeScratch('usage')
    writeFileSync(join(scratch.path, 'thesis.txt'), 'all my work\n')
    const { code, stderr } = await upserv(['list', '--data', scratch.path])
    assert.equal(code, 1)
    assert.match(stderr, /is not empty.*thesis\.txt\n {8}Choose an empty directory/)
  })

  test('one of a later format is left alone', async () => {
    using scratch = makeScratch('usage')
    writeFileSync(join(scratch.path, 'upserv.json'), '{"format":999}')
    const { code, stderr } = await upserv(['list', '--data', scratch.path])
    assert.equal(code, 1)
    assert.match(stderr, /has format 999; this program reads format 1/)
  })

  test('one that is a file', async () => {
    using scratch = makeScratch('usage')
    const file = join(scratch.path, 'file')
    writeFileSync(file, '')
    for (const path of [file, join(file, 'below')]) {
      const { code, stderr } = await upserv(['list', '--data', path])
      assert.notEqual(code, 0)
      assert.ok(stderr.includes(path), stderr)
      assert.doesNotMatch(stderr, /\n\s+at |internal error/)
    }
  })
})

test('a port that somebody else listens on', async () => {
  using scratch = makeScratch('usage')
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  try {
    for (const [flag, other] of [
      ['--rsync', '--http'],
      ['--http', '--rsync'],
    ] as const) {
      mkdirSync(scratch.path, { recursive: true })
      const args = [
        'serve',
        '--data',
        join(scratch.path, 'data'),
        flag,
        `127.0.0.1:${port}`,
        other,
        '127.0.0.1:0',
      ]
      const { code, stdout, stderr } = await upserv(args, { timeoutMs: 20_000 })
      assert.equal(code, 78, stderr)
      assert.match(stderr, new RegExp(`upserv: cannot listen on (?:http )?127\\.0\\.0\\.1:${port}: `))
      assert.equal(stdout, '')
    }
  } finally {
    server.close()
  }
})
