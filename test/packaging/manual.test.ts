/** Man pages and completions: well formed, complete, and about the program that there is. */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { completions, manPages } from '../../script/lib/manual.ts'
import { manPage } from '../../script/lib/roff.ts'
import { createProgram } from '../../src/cli/main.ts'
import { configKeys } from '../../src/config/config.ts'
import { findProgram } from '../../src/lib/find-program.ts'
import { type RunResult, run } from '../support/processes.ts'
import { makeScratch } from '../support/scratch.ts'
import { upserv } from '../support/upserv.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const skipMan = (await findProgram('man')) === undefined && 'needs man: apt-get install man-db'

/** As a person reads it, on lines that don't end. */
async function shown(page: string, text: string): Promise<RunResult> {
  using scratch = makeScratch('man')
  writeFileSync(join(scratch.path, page), text)
  return await run('man', ['--warnings', '--local-file', join(scratch.path, page)], {
    env: { ...process.env, LC_ALL: 'C.UTF-8', MANWIDTH: '2000', MANROFFSEQ: '', MAN_KEEP_FORMATTING: '' },
  })
}

describe('man pages', { skip: skipMan }, () => {
  const text = new Map<string, string>()
  before(async () => {
    for (const [page, roff] of manPages('2026-01-01')) {
      const { code, stdout, stderr } = await shown(page, roff)
      assert.equal(code, 0, stderr)
      assert.equal(stderr, '', `${page} has warnings`)
      text.set(page, Buffer.from(stdout, 'latin1').toString())
    }
  })

  test('every page that another one names is there, or is none of ours', () => {
    assert.deepEqual([...text.keys()], ['upserv-server.8', 'upserv-update.1', 'upserv.1', 'upserv.toml.5'])
    for (const [page, words] of text) {
      for (const [, name, section] of words.matchAll(/\b(upserv[\w.-]*)\((\d)\)/g)) {
        const named = `${name}.${section}`
        assert.ok(text.has(named.replace(/^UPSERV/, 'upserv')), `${page} names ${named}`)
      }
    }
  })

  test('upserv(1) has every command with every option, word for word as --help', async () => {
    const page = text.get('upserv.1')!.replaceAll(/\s+/g, ' ')
    for (const command of createProgram().commands) {
      assert.ok(page.includes(` upserv ${command.name()} [options]`), `${command.name()} is missing`)
      const { stdout } = await upserv([command.name(), '--help'])
      const help = stdout.replaceAll(/\s+/g, ' ')
      for (const { flags, description } of command.createHelp().visibleOptions(command)) {
        const wanted = `${flags} ${description[0]!.toUpperCase()}${description.slice(1)}`
        assert.ok(page.includes(wanted), `${command.name()}: "${wanted}" is missing`)
        assert.ok(help.includes(`${flags} ${description}`))
      }
    }
  })

  test('upserv.toml(5) has every key', () => {
    const page = text.get('upserv.toml.5')!
    for (const key of configKeys())
      assert.match(page, new RegExp(`^ +(?:.*, )?${key.replaceAll('.', '\\.')}\\b`, 'm'), key)
    // The example is the file that is installed.
    for (const line of readFileSync(join(ROOT, 'examples/upserv.toml'), 'utf8').split('\n'))
      assert.ok(page.includes(line.trim()), line)
  })

  test('what a page is made of comes through', async () => {
    const markdown = [
      '# Name\n\nx - "quoted" \\\\ back\\\\slash',
      "a line\n.that begins with a dot\n'and a quote - and --dashes `--code \\e 'x'`",
      '- one\n- two *em* **strong**\n',
      '1. first\n',
      '```\n.dot \\ back\n```',
      '| key | default | meaning |\n|---|---|---|\n| `k` | `1` | a [link](x.md) |\n',
    ].join('\n\n')
    const { stdout, stderr } = await shown(
      'x.1',
      manPage(markdown, { name: 'x', section: 1, date: '2026-01-01', version: '1' }),
    )
    assert.equal(stderr, '')
    for (const part of [
      '"quoted"',
      '.that begins',
      "'and a quote - and --dashes --code \\e 'x'",
      'two em strong',
      '.dot \\ back',
      'default: 1.  a link',
    ])
      assert.ok(stdout.replaceAll(/ {3,}/g, ' ').includes(part), `${part} is missing in\n${stdout}`)
  })
})

describe('completions', () => {
  const files = completions()
  const shells = [
    {
      shell: 'bash',
      file: 'bash/upserv',
      /** Prints what is offered for the last of the words. */
      script: (file: string, words: readonly string[]) =>
        `compopt() { :; }; source ${file}; COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${words.length - 1}; _upserv; printf '%s\\n' "\${COMPREPLY[@]}"`,
    },
    {
      shell: 'fish',
      file: 'fish/upserv.fish',
      script: (file: string, words: readonly string[]) =>
        `source ${file}; complete --do-complete '${words.join(' ')}' | cut -f 1`,
    },
  ]
  for (const { shell, file, script } of shells) {
    test(`${shell}: commands, options, builds that are held`, async (t) => {
      if ((await findProgram(shell)) === undefined) return t.skip(`needs ${shell}: apt-get install ${shell}`)
      using scratch = makeScratch('completion')
      const path = join(scratch.path, file)
      mkdirSync(join(path, '..'), { recursive: true })
      writeFileSync(path, files.get(file)!)
      // The program that is asked for builds, as it is in PATH.
      const bin = join(scratch.path, 'bin')
      mkdirSync(bin)
      writeFileSync(
        join(bin, 'upserv'),
        `#!/bin/sh\nexec ${ROOT}/bin/upserv "$@" --data ${scratch.path}/data\n`,
        { mode: 0o755 },
      )
      const archive = join(scratch.path, 'a.tar')
      await run('tar', ['-cf', archive, '-C', bin, 'upserv'])
      assert.equal(
        (await upserv(['import', archive, '--as', 'build-of-mine', '--data', `${scratch.path}/data`])).code,
        0,
      )
      const offered = async (...words: string[]): Promise<string[]> => {
        const options = shell === 'bash' ? ['--norc', '--noprofile', '-c'] : ['--no-config', '-c']
        const { stdout, stderr } = await run(shell, [...options, script(path, words)], {
          env: { ...process.env, PATH: `${bin}:${process.env.PATH}`, HOME: scratch.path },
        })
        assert.equal(stderr, '')
        return stdout.trim().split('\n')
      }
      const names = createProgram().commands.map((command) => command.name())
      assert.deepEqual(
        (await offered('upserv', '')).filter((word) => names.includes(word)).sort(),
        names.sort(),
      )
      for (const command of createProgram().commands) {
        const longs = command
          .createHelp()
          .visibleOptions(command)
          .map(({ long }) => long!)
        assert.deepEqual((await offered('upserv', command.name(), '--')).sort(), longs.sort(), command.name())
      }
      assert.deepEqual(await offered('upserv', 'pin', ''), ['build-of-mine'])
    })
  }

  test('zsh: the file is one that zsh reads, and has every command and option', async (t) => {
    if ((await findProgram('zsh')) === undefined) return t.skip('needs zsh: apt-get install zsh')
    using scratch = makeScratch('completion')
    const path = join(scratch.path, '_upserv')
    const text = files.get('zsh/_upserv')!
    writeFileSync(path, text)
    const { code, stderr } = await run('zsh', ['-n', path])
    assert.deepEqual([code, stderr], [0, ''])
    for (const command of createProgram().commands) {
      const line = text.split('\n').find((line) => line.trim().startsWith(`${command.name()}) _arguments`))
      assert.ok(line, command.name())
      for (const { long } of command.createHelp().visibleOptions(command))
        assert.ok(line.includes(`${long}[`), `${command.name()} ${long}`)
    }
  })
})
