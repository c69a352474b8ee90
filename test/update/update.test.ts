/** upserv-update under each shell that it promises: a device that updates, goes back, and loses power. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { findProgram } from '../../src/lib/find-program.ts'
import { Mirror } from '../support/mirror.ts'
import { type RunResult, run } from '../support/processes.ts'
import { assertSameTree, snapshot } from '../support/snapshot.ts'
import { randomBytes, SpecWriter, type TreeSpec } from '../support/tree.ts'
import type { Upserv } from '../support/upserv.ts'

const SCRIPT = fileURLToPath(new URL('../../packaging/update/upserv-update', import.meta.url))
/** What of busybox the script may use: with these alone in PATH nothing else can slip in. */
const APPLETS = 'awk basename cat cut grep head id ln ls mkdir mv printf readlink rm sed sha256sum sync tail'

/** Names that shells and lists trip over. All files have one time, and one keeps its size: rsync -a can't see it. */
function tree(build: number): TreeSpec {
  const writer = new SpecWriter()
  writer.directory('')
  writer.directory('dir with blanks')
  writer.file('same', randomBytes(1, 50_000))
  writer.file('same-size', Buffer.from(`version ${build}\n`))
  writer.file('changes', randomBytes(100 + build, 100_000 + build))
  writer.file('dir with blanks/a \\ $(touch pwned) \'"', randomBytes(build, 10))
  writer.file('new\nline', Buffer.from('x\n'))
  writer.symlink('link', 'dir with blanks')
  writer.symlink('dangling', '-n odd\\target')
  writer.hardlink('twin', 'same')
  return writer.spec
}

for (const shell of ['dash', 'busybox'] as const) {
  const skip = (await findProgram(shell)) === undefined && `needs ${shell}: apt-get install ${shell}`
  describe(`upserv-update under ${shell}`, { skip }, () => {
    let mirror: Mirror
    let upserv: Upserv
    let path: string
    let number = 0
    const device = (): string => mirror.path(`device-${++number}`)

    before(async () => {
      mirror = new Mirror()
      for (const id of [1, 2, 3]) await mirror.publish(String(id), tree(id))
      await mirror.startNginx()
      const config = mirror.path('upserv.toml')
      writeFileSync(config, '[channels]\nstable = "2"\n')
      upserv = await mirror.startUpserv({ config })
      path = process.env.PATH!
      if (shell === 'busybox') {
        path = mirror.path('applets')
        mkdirSync(path)
        for (const name of APPLETS.split(' ')) symlinkSync((await findProgram('busybox'))!, join(path, name))
        symlinkSync((await findProgram('rsync'))!, join(path, 'rsync'))
      }
    })
    after(() => mirror?.[Symbol.asyncDispose]())

    const update = (dir: string, ...args: string[]): Promise<RunResult> => updateWith(path, dir, ...args)
    const updateWith = (programs: string, dir: string, ...args: string[]): Promise<RunResult> => {
      const [program, ...first] = shell === 'busybox' ? ['busybox', 'sh'] : ['dash']
      const bin = shell === 'busybox' ? '/bin/busybox' : program!
      return run(existsSync(bin) ? bin : program!, [...first, SCRIPT, '--dir', dir, ...args], {
        env: { ...process.env, PATH: programs },
      })
    }
    const succeeds = async (dir: string, ...args: string[]): Promise<RunResult> => {
      const result = await update(dir, ...args)
      assert.equal(result.code, 0, `${result.command}\n${result.stderr}`)
      return result
    }
    const assertCurrent = (dir: string, id: string): void => {
      assert.equal(readlinkSync(join(dir, 'current')), `builds/${id}`)
      assertSameTree(mirror.snapshotOf(id), snapshot(join(dir, 'current/root')))
    }

    test('to a build, to a channel, to the next, and back', async () => {
      const dir = device()
      await succeeds(dir, upserv.url, '1')
      assertCurrent(dir, '1')
      assert.equal((await update(dir, '--check', upserv.url, '1')).code, 1)
      assert.equal((await update(dir, '--check', upserv.url, '@stable')).code, 0)
      await succeeds(dir, upserv.url, '@stable')
      assertCurrent(dir, '2')
      // What did not change is on the disk once.
      assert.equal(
        statSync(join(dir, 'builds/1/root/same')).ino,
        statSync(join(dir, 'builds/2/root/same')).ino,
      )
      await succeeds(dir, '--verify')
      await succeeds(dir, '--rollback')
      assertCurrent(dir, '1')
      await succeeds(dir, '--rollback')
      assertCurrent(dir, '2')
      const third = await succeeds(dir, '--hook', 'echo told', upserv.url, '3')
      assert.match(third.stdout, /^told 3$/m)
      assertCurrent(dir, '3')
      assert.ok(!existsSync(join(dir, 'builds/1')), 'more than two builds are kept')
      assert.ok(existsSync(join(dir, 'builds/2')))
      assert.ok(!existsSync(join(dir, 'pwned')) && !existsSync('pwned'))
    })

    const ownMv = shell === 'busybox' && 'its own mv goes before any other'
    test('a way back that is cut off has been gone, or can be gone again', { skip: ownMv }, async () => {
      const dir = device()
      for (const id of ['1', '2']) await succeeds(dir, upserv.url, id)
      const programs = mirror.path(`cut-${shell}`)
      mkdirSync(programs)
      // The power goes when the second link is about to be put in its place.
      const mv = `#!/bin/sh
echo >>"$0.calls"
if [ "$(wc -l <"$0.calls")" -ge 2 ]; then kill -KILL $PPID; exit; fi
PATH='${path}' exec mv "$@"
`
      writeFileSync(join(programs, 'mv'), mv, { mode: 0o755 })
      const cut = await updateWith(`${programs}:${path}`, dir, '--rollback')
      assert.notEqual(cut.code, 0)
      assertCurrent(dir, '1')
      const again = await update(dir, '--rollback')
      assert.equal(again.code, 1)
      assert.match(again.stderr, /build 1 is current, and there is no build to go back to/)
      assertCurrent(dir, '1')
      await succeeds(dir, upserv.url, '2')
      await succeeds(dir, '--rollback')
      assertCurrent(dir, '1')
    })

    test('a hook that fails, or is cut off, is run again until it has succeeded', async () => {
      const dir = device()
      const hook = mirror.path(`hook-${shell}`)
      writeFileSync(
        hook,
        `#!/bin/sh
if [ -e "$0.kills" ]; then kill -KILL $PPID; exit; fi
[ ! -e "$0.fails" ] || exit 1
echo "$1" >>"$0.told"
`,
        { mode: 0o755 },
      )
      const told = (): string => (existsSync(`${hook}.told`) ? readFileSync(`${hook}.told`, 'utf8') : '')
      const withHook = (...args: string[]): Promise<RunResult> => update(dir, '--hook', hook, ...args)
      await succeeds(dir, upserv.url, '1')

      writeFileSync(`${hook}.fails`, '')
      for (const says of [/build 2 is current/, /the hook failed/]) {
        const failed = await withHook(upserv.url, '2')
        assert.equal(failed.code, 4, failed.stderr)
        assert.match(failed.stderr, says)
        assertCurrent(dir, '2')
      }
      // The loader still starts build 1: nothing that could take it away.
      assert.equal((await withHook(upserv.url, '3')).code, 4)
      assertCurrent(dir, '2')
      assert.ok(existsSync(join(dir, 'builds/1')) && !existsSync(join(dir, 'builds/3')))
      // Who polls hears that there is something to do, and who runs it without the hook that it is owed.
      assert.equal((await update(dir, '--check', upserv.url, '2')).code, 0)
      const without = await update(dir, upserv.url, '3')
      assert.equal(without.code, 4)
      assert.match(without.stderr, /a hook has not been told of build 2: run this with --hook/)
      // Back to where the loader is; it takes no server, nor does telling it.
      assert.equal((await withHook('--rollback')).code, 4)
      assertCurrent(dir, '1')
      rmSync(`${hook}.fails`)
      assert.equal(told(), '')
      assert.equal((await withHook('rsync://127.0.0.1:9', '@stable')).code, 2)
      assert.equal(told(), '1\n')
      assert.equal((await update(dir, '--check', upserv.url, '1')).code, 1)

      // As when the power goes.
      writeFileSync(`${hook}.kills`, '')
      const killed = await withHook(upserv.url, '2')
      assert.notEqual(killed.code, 0)
      assertCurrent(dir, '2')
      rmSync(`${hook}.kills`)
      const again = await withHook(upserv.url, '2')
      assert.equal(again.code, 0, again.stderr)
      assert.equal(told(), '1\n2\n')
      assert.equal((await withHook(upserv.url, '2')).code, 0)
      assert.equal(told(), '1\n2\n', 'it was told twice')
    })

    test('damage is found by --verify, and does not spread into the next build', async () => {
      const dir = device()
      await succeeds(dir, upserv.url, '1')
      const file = join(dir, 'current/root/same')
      const { mtime } = statSync(file)
      writeFileSync(file, randomBytes(9, 50_000))
      execFileSync('touch', ['-d', mtime.toISOString(), file])
      const verified = await update(dir, '--verify')
      assert.equal(verified.code, 3)
      assert.match(verified.stderr, /same: FAILED/)
      // What it says is what helps: an update to the same build finds nothing to do.
      assert.match(verified.stderr, /build 1 is damaged: the next build gets these files from the server$/m)
      await succeeds(dir, upserv.url, '1')
      assert.equal((await update(dir, '--verify')).code, 3)
      await succeeds(dir, upserv.url, '2')
      assertCurrent(dir, '2')
    })

    test('killed at any moment, a build is current, whole; the next run goes on', async () => {
      const dir = device()
      await succeeds(dir, upserv.url, '1')
      for (const ms of [10, 60, 150, 300, 500]) {
        const [program, ...first] = shell === 'busybox' ? ['/bin/busybox', 'sh'] : ['dash']
        // timeout(1) kills the shell's whole group, as the power would.
        await run(
          '/usr/bin/timeout',
          [
            '-s',
            'KILL',
            String(ms / 1000),
            program!,
            ...first,
            SCRIPT,
            '--dir',
            dir,
            '--rsync=--bwlimit=300k',
            upserv.url,
            '2',
          ],
          {
            env: { ...process.env, PATH: path },
          },
        )
        assertCurrent(dir, readlinkSync(join(dir, 'current')) === 'builds/2' ? '2' : '1')
      }
      let result = await update(dir, upserv.url, '2')
      // An rsync of a run before may still hold the lock for a moment.
      for (let tries = 0; result.code === 75 && tries < 100; tries++) {
        await new Promise((resolve) => setTimeout(resolve, 100))
        result = await update(dir, upserv.url, '2')
      }
      assert.equal(result.code, 0, result.stderr)
      assertCurrent(dir, '2')
    })

    test('a list of contents that does not agree changes nothing', async () => {
      const dir = device()
      await succeeds(dir, upserv.url, '1')
      // A hook in front of sha256sum would be no real server: the list is falsified where it is kept.
      mkdirSync(join(dir, 'incoming/2'), { recursive: true })
      await upserv.cli(['fetch', '2'])
      const contents = mirror.path('data/builds/2/contents')
      const right = readFileSync(contents, 'utf8')
      const { atime, mtime } = statSync(contents)
      writeFileSync(
        contents,
        right.replace(/sha256=./, (found) => (found.endsWith('0') ? 'sha256=1' : 'sha256=0')),
      )
      try {
        const result = await update(dir, upserv.url, '2')
        assert.ok(result.code === 3 || result.code === 2, result.stderr)
        assertCurrent(dir, '1')
      } finally {
        writeFileSync(contents, right)
        execFileSync('touch', ['-d', mtime.toISOString(), contents])
        void atime
        rmSync(join(dir, 'incoming/2'), { recursive: true, force: true })
      }
      await succeeds(dir, upserv.url, '2')
      assertCurrent(dir, '2')
    })

    test('what it refuses, and what it says', async () => {
      const dir = device()
      for (const [args, code, says] of [
        [[], 64, /^Usage:/],
        [['http://server', '1'], 64, /is no URL/],
        [[upserv.url, '../../etc'], 64, /is no build id/],
        [[upserv.url, '@no/name'], 64, /is no name of a channel/],
        [['--keep=0', upserv.url, '1'], 64, /--keep: "0"/],
        [['--keep', '1', upserv.url, '1'], 64, /"1" is too few: the current build and the one before stay/],
        [['--dir='], 64, /--dir needs a value/],
        ...['--dir', '--keep', '--hook', '--rsync', '--timeout'].map(
          (option) => [[option], 64, new RegExp(`^upserv-update: ${option} needs a value$`, 'm')] as const,
        ),
        // It says no more than it knows: nobody is asked.
        [['--check', 'rsync://127.0.0.1:9', '99'], 0, /build 99 is another than the current one, none$/m],
        [['--rollback'], 1, /no build to go back to/],
        [['--verify'], 1, /no build is current/],
        [[upserv.url, '99'], 2, /no such build|not published/],
        [[upserv.url, '@nothing'], 2, /channel nothing can't be asked for/],
      ] as const) {
        const result = await update(dir, ...args)
        assert.equal(result.code, code, `${result.command}\n${result.stderr}`)
        assert.match(result.stderr, says)
      }
      assert.ok(!existsSync(join(dir, 'current')))
    })
  })
}
