/** Rules of access in the running program, met by the real client: who is let in, what it sees, what is logged. */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { Mirror, randomTree } from '../support/mirror.ts'
import { run } from '../support/processes.ts'
import { RawClient } from '../support/raw-client.ts'
import { PROTOCOLS, rsync, rsyncEnds, rsyncSucceeds } from '../support/rsync.ts'
import { SpecWriter, type TreeSpec } from '../support/tree.ts'
import { UPSERV, type Upserv } from '../support/upserv.ts'

/** A tree with what a module is to hide, and ways to get at it. */
function treeWithSecrets(): TreeSpec {
  const tree = new SpecWriter()
  tree.directory('')
  tree.file('plain', Buffer.from('plain\n'))
  tree.directory('private')
  tree.file('private/key', Buffer.from('secret\n'))
  tree.directory('public')
  tree.file('public/id_rsa', Buffer.from('secret\n'))
  tree.file('public/note', Buffer.from('note\n'))
  tree.symlink('to-file', 'private/key')
  tree.symlink('to-directory', 'private')
  tree.symlink('up', '../root/private/key')
  // Rule files and lists of names, which a client may tell the server to read.
  tree.file('private/.rules', Buffer.from('- plain\n'))
  tree.file('private/names', Buffer.from('plain\n'))
  return tree.spec
}

let mirror: Mirror
let upserv: Upserv
before(async () => {
  mirror = new Mirror()
  await mirror.publish('1', randomTree(1, 3, 1000))
  await mirror.publish('staff', randomTree(2, 2, 1000))
  await mirror.publish('part', treeWithSecrets())
  await mirror.startNginx()
  const secrets = mirror.path('secrets')
  writeFileSync(secrets, 'alice:sesame\n', { mode: 0o600 })
  const config = mirror.path('upserv.toml')
  writeFileSync(
    config,
    `
[rsync]
motd = """
Welcome to the school server.
@ERROR is not what it looks like
"""

[[module]]
name         = "build-staff"
list         = true
comment      = "for staff only"
auth_users   = ["alice"]
secrets_file = "${secrets}"

[[module]]
name       = "build-else*"
hosts_deny = ["127.0.0.0/8", "::1"]

[[module]]
name = "build-1"
list = false
refuse_options = ["checksum", "compress"]

[[module]]
name    = "build-part"
exclude = ["/root/private", "id_*", "/contents"]
`,
  )
  upserv = await mirror.startUpserv({ config })
  await rsyncSucceeds(['-r', `${upserv.url}/build-1/root/`, mirror.place()])
  await rsyncSucceeds(['-r', `${upserv.url}/build-part/root/public/`, mirror.place()])
  await rsyncSucceeds(['-r', `rsync://alice@127.0.0.1:${upserv.port}/build-staff/root/`, mirror.place()], {
    env: { RSYNC_PASSWORD: 'sesame' },
  })
})
after(async () => {
  await upserv?.stop()
  await mirror?.[Symbol.asyncDispose]()
})

describe('the listing and the message of the day', { concurrency: 2 }, () => {
  for (const protocol of PROTOCOLS) {
    test(`protocol ${protocol}`, async () => {
      const { stdout } = await rsyncSucceeds([`${upserv.url}/`], { protocol })
      assert.ok(
        stdout.startsWith('Welcome to the school server.\n @ERROR is not what it looks like\n\nbuild-part'),
        stdout,
      )
      assert.match(stdout, /^build-staff {4}\tfor staff only$/m)
      assert.doesNotMatch(stdout, /build-1/, 'list = false')
      // The client takes a listing for such text as well.
      assert.equal((await rsyncSucceeds(['--no-motd', `${upserv.url}/`], { protocol })).stdout, '')
      const quiet = ['--no-motd', '--list-only', `${upserv.url}/build-part/root/plain`]
      assert.match((await rsyncSucceeds(quiet, { protocol })).stdout, /^-rw\S+ .* plain\n$/)
    })
  }
})

describe('who may not come in', { concurrency: 2 }, () => {
  for (const protocol of [27, 29, 30, 32]) {
    for (const [what, name] of [
      ['a module', 'build-else'],
      ['a module that exists nowhere', 'build-else-nonsense'],
    ]) {
      test(`protocol ${protocol}: ${what} is not for this host`, async () => {
        const { stderr } = await rsyncEnds(5, ['-r', `${upserv.url}/${name}/`, mirror.place()], { protocol })
        assert.match(
          stderr,
          new RegExp(`^@ERROR: access denied to ${name} from UNDETERMINED \\(127\\.0\\.0\\.1\\)$`, 'm'),
        )
      })
    }
  }

  test('nothing was fetched for who was refused', async () => {
    assert.deepEqual(mirror.requestsFor('else'), [])
    const { stderr } = await rsyncEnds(5, ['-r', `${upserv.url}/build-staff/`, mirror.place()], {
      env: { RSYNC_PASSWORD: 'wrong' },
    })
    assert.match(stderr, /@ERROR: auth failed on module build-staff/)
  })

  test('under inetd without an address, rules refuse and their absence does not', async () => {
    const session = (module: string) => `@RSYNCD: 31.0\n${module}\n`
    const inetd = async (module: string): Promise<string> =>
      (await run(UPSERV, ['server', '--data', mirror.data], { input: session(module), timeoutMs: 30_000 }))
        .stdout
    assert.match(
      await inetd('build-else'),
      /^@ERROR: access denied to build-else from UNDETERMINED \(unknown\)$/m,
    )
    assert.match(await inetd('build-part'), /^@RSYNCD: OK$/m)
  })
})

describe('options that are refused', { concurrency: 2 }, () => {
  for (const [args, told] of [
    [['-c'], '--checksum (-c)'],
    [['-z'], '--compress (-z)'],
    [['--zc=zlib'], '--compress (-z)'],
    [['-M--write-devices'], '--write-devices'],
    [['-M--log-file=/tmp/x'], '--log-file'],
    [['-M--copy-devices'], '--copy-devices'],
    [['-M--daemon'], '--daemon'],
  ] as const) {
    for (const protocol of [29, 32]) {
      test(`protocol ${protocol}: ${args.join(' ')}`, async () => {
        const { code, stdout, stderr } = await rsync(
          ['-r', ...args, `${upserv.url}/build-1/`, mirror.place()],
          {
            protocol,
          },
        )
        assert.ok((stdout + stderr).includes(`ERROR: the server is configured to refuse ${told}\n`), stderr)
        assert.equal(code, protocol >= 31 ? 4 : 12)
      })
    }
  }
  for (const option of ['--partial-dir=x', '--temp-dir=/tmp', '--super', '--fake-super', '--chmod=o-rwx']) {
    test(`not refused, as by the stock daemon: ${option}`, async () => {
      await rsyncSucceeds(['-r', `-M${option}`, `${upserv.url}/build-1/root/`, mirror.place()])
    })
  }
})

describe("client rules that bypass a module's own filters", { concurrency: 2 }, () => {
  const HIDDEN = /private\/|key|id_rsa|secret|contents|\.rules|names/
  const tricks: readonly { name: string; args: string[]; paths?: string[]; code?: number; input?: string }[] =
    [
      { name: 'everything', args: ['-a'], paths: ['/'] },
      { name: 'the root alone', args: ['-a'] },
      {
        name: 'include rules',
        args: ['-a', '--include=private', '--include=private/***', '--include=id_rsa'],
      },
      { name: 'a cleared list of rules', args: ['-a', '-f!', '-f+ /private/', '-fS id_rsa', '-fR key'] },
      { name: 'protect and show', args: ['-a', '--filter=show,/ /root/private/', '--filter=risk id_rsa'] },
      { name: 'links followed', args: ['-aL'], code: 23 },
      { name: 'links to directories followed', args: ['-ak'] },
      { name: 'unsafe links copied', args: ['-a', '--copy-unsafe-links'], code: 23 },
      { name: 'the file by name', args: ['-a'], paths: ['/root/private/key'], code: 23 },
      { name: 'the directory by name', args: ['-a'], paths: ['/root/private'], code: 23 },
      { name: 'its contents', args: ['-a'], paths: ['/root/private/'], code: 23 },
      { name: 'round about', args: ['-a'], paths: ['/root/public/../private/key'], code: 23 },
      { name: 'through a link', args: ['-a'], paths: ['/root/to-directory/key', '/root/to-file/'], code: 23 },
      { name: 'by a pattern', args: ['-a'], paths: ['/root/p*/*'] },
      { name: 'by a pattern that names it', args: ['-a'], paths: ['/root/privat[e]/k?y'], code: 23 },
      { name: 'relative, with its parents', args: ['-aR'], paths: ['/./root/private/key'], code: 23 },
      { name: "upstream's contents", args: ['-a'], paths: ['/contents'], code: 23 },
      {
        name: '--files-from',
        args: ['-a', '--files-from=-'],
        input: 'private/key\nprivate\npublic/id_rsa\nplain\n',
        code: 23,
      },
      { name: '--files-from, recursive', args: ['-ar', '--files-from=-'], input: '.\n' },
      {
        name: 'missing arguments deleted',
        args: ['-a', '--delete-missing-args'],
        paths: ['/root/private/key'],
        // The directory that it would lie in does not exist either.
        code: 23,
      },
      { name: 'listed only', args: ['-r', '--list-only'] },
      { name: 'secluded', args: ['-a', '-s'], paths: ['/root/private/key'], code: 23 },
    ]
  for (const { name, args, paths = ['/root/'], code = 0, input } of tricks) {
    for (const protocol of [29, 32]) {
      test(`protocol ${protocol}: ${name}`, async () => {
        const place = mirror.place()
        mkdirSync(place)
        const sources = paths.map((path) => `${upserv.url}/build-part${path}`)
        const target = args.includes('--list-only') ? [] : [place]
        const options = input === undefined ? { protocol } : { protocol, input }
        const { stdout } = await rsyncEnds(code, [...args, ...sources, ...target], options)
        const came = readdirSync(place, { recursive: true }).map(String)
        assert.deepEqual(
          came.filter((path) => HIDDEN.test(path)),
          [],
        )
        assert.doesNotMatch(stdout.replaceAll(/^.* -> .*$/gm, ''), HIDDEN)
        for (const path of came.filter((path) => /to-|up$/.test(path))) {
          assert.ok(!existsSync(join(place, path)), `${path} leads somewhere`)
        }
      })
    }
  }

  test('through the module that shows all builds: what is hidden stays so, and who may not come in sees nothing', async () => {
    const place = mirror.place()
    await rsyncSucceeds(['-a', `${upserv.url}/builds/`, place])
    assert.deepEqual(readdirSync(place).sort(), ['1', 'part'], 'a build that needs a password is not shown')
    const came = readdirSync(join(place, 'part'), { recursive: true }).map(String)
    assert.deepEqual(
      came.filter((path) => HIDDEN.test(path)),
      [],
    )
    assert.ok(came.includes('root/public/note'))
    assert.ok(existsSync(join(place, '1', 'contents')), 'it is hidden in the other build alone')
    await rsyncEnds(23, ['-a', `${upserv.url}/builds/part/root/private/key`, mirror.place()])
    await rsyncEnds(23, ['-a', `${upserv.url}/builds/staff/`, mirror.place()])
  })

  test('a rule file in a hidden directory says nothing, and one that is hidden neither', async () => {
    const place = mirror.place()
    await rsyncSucceeds([
      '-a',
      '-f:s /private/.rules'.replace('/private', ''),
      `${upserv.url}/build-part/root/`,
      place,
    ])
    assert.ok(existsSync(join(place, 'plain')))
  })

  test('a list of names in a hidden directory is not read', async () => {
    const list = `--files-from=:/root/private/names`
    const { code, stderr } = await rsync(['-a', list, `${upserv.url}/build-part/root/`, mirror.place()])
    assert.notEqual(code, 0)
    assert.match(stderr, /names|No such file/)
  })

  test('with --delete, what is hidden is gone from the device', async () => {
    const place = mirror.place()
    mkdirSync(join(place, 'private'), { recursive: true })
    writeFileSync(join(place, 'private', 'key'), 'old')
    await rsyncSucceeds(['-a', '--delete', `${upserv.url}/build-part/root/`, place])
    assert.deepEqual(readdirSync(place).sort(), ['plain', 'public', 'to-directory', 'to-file', 'up'])
    assert.equal(readFileSync(join(place, 'public', 'note'), 'utf8'), 'note\n')
  })
})

describe('the line that the log has for a session', () => {
  /** Of the latest session that fits. */
  async function logged(pattern: RegExp): Promise<Record<string, unknown>> {
    await upserv.process.waitForOutput('stderr', pattern)
    const line = upserv.process.stderr.split('\n').findLast((line) => pattern.test(line))
    return JSON.parse(line!) as Record<string, unknown>
  }

  test('says who, what, how and how it went', async () => {
    const place = mirror.place()
    await rsyncSucceeds(
      [
        '-rt',
        '--no-inc-recursive',
        '--checksum',
        '--zc=zstd',
        '--timeout=77',
        `rsync://alice@127.0.0.1:${upserv.port}/build-staff/root/`,
        place,
      ],
      { env: { RSYNC_PASSWORD: 'sesame' } },
    )
    const { peer, user, module, paths, options, protocol, codec, digest, listDigest, outcome, ...rest } =
      await logged(/--timeout=77/)
    assert.match(String(peer), /^127\.0\.0\.1:\d+$/)
    assert.deepEqual(
      { user, module, paths, protocol, codec, outcome },
      {
        user: 'alice',
        module: 'build-staff',
        paths: 'build-staff/root/',
        protocol: 32,
        codec: 'zstd',
        outcome: 'done',
      },
    )
    assert.match(String(options), /^--server --sender -\S+ .*--timeout=77/)
    assert.ok(digest && listDigest === digest, String(digest))
    assert.deepEqual(rest.waitedMs && Object.keys(rest.waitedMs).sort(), ['build', 'line'])
    for (const key of ['bytesIn', 'bytesOut', 'matchedBytes', 'literalBytes', 'files', 'entries', 'ms']) {
      assert.equal(typeof rest[key], 'number', key)
    }
    assert.equal(rest.files, 3) // one of them under two names
    assert.ok(Number(rest.literalBytes) >= 2000)
  })

  test('control characters in logged names', async () => {
    const path = '/root/no\nsuch"name\x1b]0;x\x07/\u202e\x9b31m'
    await rsyncEnds(23, ['-r', '-s', `${upserv.url}/build-part${path}`, mirror.place()])
    const line = await logged(/no\\\\nsuch/)
    assert.equal(line.paths, 'build-part/root/no\\nsuch"name\\x1b]0;x\\x07/\\u202e\\x9b31m')
    const raw = upserv.process.stderr
    assert.doesNotMatch(raw, /[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]/, 'a control character stands in the log')
    for (const text of raw.trimEnd().split('\n')) assert.doesNotThrow(() => JSON.parse(text), text)
  })

  test('control characters in the names of users and modules', async () => {
    using client = await RawClient.open(upserv.port)
    client.send('@RSYNCD: 31.0\nbuild-staff\n')
    await client.linesUntil(/AUTHREQD/)
    client.send('al\x1b[2Jice\t\x9b x\n')
    assert.equal(await client.line(), '@ERROR: auth failed on module build-staff')
    const { user, code } = await logged(/al\\\\x1b/)
    assert.deepEqual({ user, code }, { user: 'al\\x1b[2Jice\\t\\x9b', code: 'ACCESS_DENIED' })
    await rsyncEnds(5, ['-r', `${upserv.url}/build-else\x1b[2J/`, mirror.place()])
    await logged(/build-else\\\\x1b/)
    assert.doesNotMatch(upserv.process.stderr, /\x1b/)
  })
})
