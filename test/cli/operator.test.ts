/** The commands of an operator, piped and under a pseudo-terminal, against a server with real clients. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, before, describe, test } from 'node:test'
import { createProgram } from '../../src/cli/main.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { quoteForShell, type RunResult, run } from '../support/processes.ts'
import { rsyncEnds, rsyncSucceeds } from '../support/rsync.ts'
import { upserv as runUpserv, UPSERV, type Upserv } from '../support/upserv.ts'

const ESCAPE = /\x1b/

describe("an operator's commands", () => {
  let mirror: Mirror
  let upserv: Upserv
  const cli = async (code: number, ...args: string[]): Promise<RunResult> => {
    const result = await upserv.cli(args)
    assert.equal(result.code, code, result.stdout + result.stderr)
    return result
  }
  /** As a person has it in front of them: `script` gives the command a terminal. */
  const inTerminal = async (args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<string> => {
    const command = [UPSERV, ...args, '--data', mirror.data].map(quoteForShell).join(' ')
    const { stdout } = await run('script', ['-qec', command, '/dev/null'], {
      // Where CI is set, Node takes a terminal for one without colours.
      env: { ...process.env, TERM: 'xterm', ...env, CI: undefined },
    })
    return stdout
  }

  before(async () => {
    mirror = new Mirror()
    const tree = randomTree(1, 6, 300_000)
    await mirror.publish('1', tree)
    await mirror.publish('2', new Map([...tree, ...randomTree(2, 2, 300_000)]))
    await mirror.startNginx()
    upserv = await mirror.startUpserv({ http: '127.0.0.1:0' })
    const place = mirror.place()
    await rsyncSucceeds(['-aH', `${upserv.url}/build-1/root/`, place])
    await rsyncSucceeds(['-aHcz', `${upserv.url}/build-2/root/`, place])
    await rsyncEnds(5, [`${upserv.url}/build-404/`])
  })
  after(async () => {
    await upserv?.stop()
    await mirror?.[Symbol.asyncDispose]()
  })

  test('every command has help with an example', async () => {
    const names = createProgram().commands.map((command) => command.name())
    assert.ok(names.length > 15)
    for (const name of names) {
      const { code, stdout: help } = await runUpserv([name, '--help'])
      assert.equal(code, 0)
      assert.match(help, /\nExamples?:\n {2}\S/, name)
    }
    assert.match((await runUpserv(['--help'])).stdout, /Exit codes: {2}0 done, 1 refused/)
  })

  test('history, for people and for programs', async () => {
    const { stdout } = await cli(0, 'history')
    assert.match(
      stdout,
      /^SESSION +ENDED +DEVICE +MODULE +OUTCOME +SENT\n3 .* build-404 +refused +build-404 is not published.*\n2 .* 127\.0\.0\.1 +build-2 +done +.*\n1 /,
    )
    assert.doesNotMatch(stdout, ESCAPE)
    const of = async (...args: string[]): Promise<number[]> =>
      (JSON.parse((await cli(0, 'history', '--json', ...args)).stdout) as { id: number }[]).map(
        ({ id }) => id,
      )
    assert.deepEqual(await of('--build', '2'), [2])
    assert.deepEqual(await of('--outcome', 'refused', '--since', '1h'), [3])
    assert.deepEqual(await of('--until', '1h'), [])
    assert.deepEqual(await of('--limit', '1'), [3])
    // What deletes must not take a time for another one: "7" and "1 week" are days of 2001 to JavaScript.
    for (const text of ['yesterday', '7', '1 week', '2026-13-01', '12'])
      assert.match(
        (await cli(64, 'history', '--since', text, '--forget', '--yes')).stderr,
        new RegExp(`--since: "${text}" is no time`),
      )
    assert.deepEqual(await of('--since', '2026-01-01T00:00:00+02:00', '--until', '2026-01-02 10:00'), [])
    assert.match((await cli(64, 'history', '--limit', '0')).stderr, /no number from 1/)
  })

  test('why: by number and by device', async () => {
    const { stdout } = await cli(0, 'why', '2')
    assert.match(stdout, /^session 2: 127\.0\.0\.1, .*, done\n/)
    assert.match(stdout, /asked for +build-2 {2}build-2\/root\//)
    assert.match(stdout, /content +0 B matched, 600 kB literal/)
    assert.match(stdout, /300 kB {2}file-0 \(differences\)/)
    assert.match(stdout, /\n-> The files that the device had share nothing/)
    assert.match((await cli(0, 'why', '1')).stdout, /-> No basis: this was a first sync/)
    assert.match(
      (await cli(0, 'why', '127.0.0.1')).stdout,
      /^session 3: .*refused\n {2}build-404 is not published.*\(BUILD_NOT_PUBLISHED\)/,
    )
    assert.equal(JSON.parse((await cli(0, 'why', '1', '--json')).stdout).record.build, '1')
    assert.match((await cli(1, 'why', '77')).stderr, /nothing is known of a session 77\n.*upserv history/)
  })

  test('colours on a terminal only, and not with NO_COLOR', async () => {
    assert.match(await inTerminal(['why', '2']), /\x1b\[32mdone\x1b/)
    const { NO_COLOR: _, ...env } = process.env
    assert.doesNotMatch(await inTerminal(['why', '2'], { ...env, NO_COLOR: '1' }), ESCAPE)
    assert.doesNotMatch((await cli(0, 'why', '2')).stdout, ESCAPE)
  })

  test('top shows clients as they come, and leaves the terminal as it was', async () => {
    assert.match(
      (await cli(0, 'top')).stdout,
      /CLIENTS {2}0, of them 0 in line\n\nFETCHES {2}0\n\nLAST\nrefused {2}127\.0\.0\.1 {2}build-404/,
    )
    assert.equal(JSON.parse((await cli(0, 'top', '--json')).stdout).status.builds, 2)
    const top = new Terminal([UPSERV, 'top', '--data', mirror.data])
    try {
      await top.waitFor(/CLIENTS {2}0/)
      const { client } = mirror.client(upserv, '1', ['--bwlimit=400k'])
      await top.waitFor(/127\.0\.0\.1 +build-1 +\[#+\.*\] +\d+ %/)
      client.kill()
      await top.waitFor(/lost\S* {2}127\.0\.0\.1 {2}build-1/)
      top.type('q')
      assert.equal(await top.ended, 0)
      assert.match(top.shown, /^\x1b\[\?1049h/)
      assert.match(top.shown, /\x1b\[\?25h\x1b\[\?1049l\s*$/)
    } finally {
      top.kill()
    }
  })

  test('a bar on a terminal, plain lines otherwise', async () => {
    await mirror.publish('slow', randomTree(5, 8, 500_000))
    await mirror.nginx.stop()
    await mirror.startNginx('900k')
    const shown = await inTerminal(['fetch', 'slow'])
    assert.match(shown, /\r\x1b\[K\[#+\.*\] build-slow: downloading and unpacking: \d+ %/)
    await cli(0, 'remove', 'slow')
    const { stderr, stdout } = await cli(0, 'fetch', 'slow')
    assert.match(stderr, /^build-slow: downloading and unpacking: \d+ % .*$/m)
    assert.doesNotMatch(stderr, /[\x1b\r]|\[#/)
    assert.equal(stdout, 'build slow is fetched\n')
  })

  test('completion works in bash', async () => {
    const complete = async (...words: string[]): Promise<string[]> => {
      const { stdout: script } = await cli(0, 'completion', 'bash')
      const text = `upserv() { ${quoteForShell(UPSERV)} "$@" --data ${quoteForShell(mirror.data)}; }
${script}
COMP_WORDS=(upserv ${words.map(quoteForShell).join(' ')}); COMP_CWORD=${words.length}; _upserv; printf '%s\\n' "\${COMPREPLY[@]}"`
      const { code, stdout, stderr } = await run('bash', ['-c', text])
      assert.deepEqual([code, stderr], [0, ''])
      return stdout.split('\n').filter(Boolean)
    }
    assert.deepEqual(await complete('ver'), ['verify'])
    assert.deepEqual((await complete('un')).sort(), ['unpin'])
    assert.deepEqual(await complete('gc', '--dr'), ['--dry-run'])
    assert.deepEqual(
      (await complete('pin', '')).filter((word) => !word.startsWith('-')),
      ['1', '2', 'slow'],
    )
    for (const shell of ['zsh', 'fish']) assert.match((await cli(0, 'completion', shell)).stdout, /upserv/)
    assert.match((await cli(64, 'completion', 'csh')).stderr, /bash, zsh and fish/)
  })

  test('the token is printed to its owner', async () => {
    const { stdout } = await cli(0, 'token')
    assert.equal(stdout, readFileSync(join(mirror.data, 'http.token'), 'utf8'))
    assert.deepEqual(JSON.parse((await cli(0, 'token', '--json')).stdout), { token: stdout.trim() })
    assert.match(
      (await runUpserv(['token', '--data', mirror.path('nowhere')])).stderr,
      /made when the server starts/,
    )
  })

  test('what is forgotten is gone', async () => {
    assert.match((await cli(64, 'history', '--forget')).stderr, /deletes for good\n.*--yes/)
    assert.match(
      (await cli(0, 'history', '--forget', '--yes', '--build', '2')).stdout,
      /^1 sessions are forgotten/,
    )
    assert.doesNotMatch((await cli(0, 'history')).stdout, /build-2 /)
  })
})

/** A command in a terminal of its own, that one can type into. */
class Terminal {
  readonly #child: ChildProcess
  readonly ended: Promise<number | null>
  shown = ''
  #changed = Promise.withResolvers<void>()

  constructor(words: readonly string[]) {
    const command = `stty cols 120 rows 40; exec ${words.map(quoteForShell).join(' ')}`
    const env = { ...process.env, TERM: 'xterm' }
    this.#child = spawn('script', ['-qec', command, '/dev/null'], { env, stdio: ['pipe', 'pipe', 'ignore'] })
    this.#child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.shown += text
      this.#changed.resolve()
      this.#changed = Promise.withResolvers<void>()
    })
    this.ended = new Promise((resolve) => this.#child.once('close', resolve))
  }

  async waitFor(pattern: RegExp): Promise<void> {
    const deadline = AbortSignal.timeout(30_000)
    deadline.addEventListener('abort', () => this.#changed.resolve(), { once: true })
    while (!pattern.test(this.shown)) {
      assert.ok(!deadline.aborted, `no ${pattern} in\n${this.shown}`)
      await this.#changed.promise
    }
  }

  type(keys: string): void {
    this.#child.stdin!.write(keys)
  }

  /** Its command hears that the terminal is gone. */
  kill(): void {
    this.#child.kill('SIGKILL')
  }
}

test('the history never keeps a client waiting, and numbers go on over restarts', async () => {
  await using mirror = new Mirror()
  await mirror.publish('1', randomTree(1, 3, 1000))
  await mirror.startNginx()
  let upserv = await mirror.startUpserv()
  await mirror.assertServes(upserv, '1')
  const remembered = async (): Promise<number[]> =>
    (JSON.parse((await upserv.cli(['history', '--json'])).stdout) as { id: number }[]).map(({ id }) => id)
  assert.deepEqual(await remembered(), [1])
  // Somebody looks into the database with a program of their own, and is in no hurry.
  const database = new DatabaseSync(join(mirror.data, 'history', 'sessions.db'))
  database.exec('BEGIN IMMEDIATE')
  for (let n = 0; n < 3; n++) await mirror.assertServes(upserv, '1')
  assert.equal(database.prepare('SELECT count(*) AS n FROM sessions').get()!.n, 1)
  database.exec('COMMIT')
  database.close()
  assert.deepEqual(await remembered(), [4, 3, 2, 1])
  await upserv.stop()
  upserv = await mirror.startUpserv()
  await mirror.assertServes(upserv, '1')
  assert.deepEqual(await remembered(), [5, 4, 3, 2, 1])
  await upserv.stop()
})
