import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, chownSync, mkdtempSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { parseSecrets, SecretsFile } from './secrets.ts'

const directory = mkdtempSync(join(tmpdir(), 'upserv-secrets-'))
after(() => rmSync(directory, { recursive: true }))
let files = 0

function secretsFile(text: string, mode = 0o600): { path: string; file: SecretsFile; problems: string[] } {
  const path = join(directory, String(++files))
  writeFileSync(path, text)
  chmodSync(path, mode) // whatever the umask is
  const problems: string[] = []
  return { path, problems, file: new SecretsFile(path, (problem) => problems.push(problem)) }
}

test('secrets: users, comments, blank lines, what belongs to a password', () => {
  const text = '# who\r\nalice:sesame\n\n  \nbob:with : and # \r\nj\xfc:p\xff\nlast:line'
  const secrets = parseSecrets(Buffer.from(text, 'latin1'))
  assert.deepEqual(
    [...secrets].map(([user, password]) => [user, password.toString('latin1')]),
    [
      ['alice', 'sesame'],
      ['bob', 'with : and # '],
      ['j\xfc', 'p\xff'],
      ['last', 'line'],
    ],
  )
})

for (const [name, text, why] of [
  ['no colon', 'alice:a\nbob\n', /line 2 is not "user:password"/],
  ['no user', ':secret\n', /line 1 is not/],
  ['no password', 'alice:\n', /line 1 has no password/],
  ['a group', '@wheel:secret\n', /line 1 names a group/],
  ['a blank in a user', 'alice smith:secret\n', /line 1 has a blank/],
  ['a user twice', 'alice:a\nbob:b\nalice:c\n', /line 3 names a user for the second time/],
] as const) {
  test(`secrets: a file with ${name} has no passwords at all, and the secret is not told`, () => {
    const { file, problems } = secretsFile(text)
    assert.equal(file.passwordOf('alice'), undefined)
    assert.match(problems[0]!, why)
    assert.doesNotMatch(problems[0]!, /secret:|:secret/)
  })
}

for (const mode of [0o604, 0o602, 0o606, 0o644, 0o620, 0o660, 0o601]) {
  test(`secrets: a file of mode ${mode.toString(8)} is not used`, () => {
    const { file, path, problems } = secretsFile('alice:sesame\n', mode)
    assert.equal(file.passwordOf('alice'), undefined)
    assert.match(problems[0]!, /others may read or change it/)
    chmodSync(path, 0o600)
    assert.equal(file.passwordOf('alice')?.toString(), 'sesame', 'it was mended')
    chmodSync(path, mode)
    assert.equal(file.passwordOf('alice'), undefined, 'it was broken again')
  })
}

test('secrets: the group of the server may read the file', () => {
  assert.equal(secretsFile('alice:sesame\n', 0o640).file.passwordOf('alice')?.toString(), 'sesame')
})

test('secrets: missing, a directory, a pipe: nobody gets in, and it is said once', () => {
  const pipe = join(directory, 'pipe')
  assert.equal(spawnSync('mkfifo', ['-m', '600', pipe]).status, 0)
  for (const [path, why] of [
    [join(directory, 'missing'), /ENOENT/],
    [directory, /others may|no regular file/],
    [pipe, /no regular file/],
  ] as const) {
    const problems: string[] = []
    const file = new SecretsFile(path, (problem) => problems.push(problem))
    for (let i = 0; i < 3; i++) assert.equal(file.passwordOf('alice'), undefined)
    assert.equal(problems.length, 1)
    assert.match(problems[0]!, why)
  }
})

test('secrets: a file of somebody else is not used', { skip: process.getuid?.() !== 0 }, () => {
  const { file, path, problems } = secretsFile('alice:sesame\n')
  chownSync(path, 65534, 65534)
  assert.equal(file.passwordOf('alice'), undefined)
  assert.match(problems[0]!, /belongs to user 65534/)
})

test('secrets: a changed file is read again, in place or by rename, and within the tick of a clock', () => {
  const { file, path } = secretsFile('alice:one\n')
  assert.equal(file.passwordOf('alice')?.toString(), 'one')
  for (let i = 0; i < 50; i++) {
    writeFileSync(path, `alice:${100 + i}\n`) // of equal length, and faster than some clocks tick
    assert.equal(file.passwordOf('alice')?.toString(), String(100 + i))
  }
  writeFileSync(`${path}.new`, 'bob:two\n', { mode: 0o600 })
  renameSync(`${path}.new`, path)
  assert.equal(file.passwordOf('alice'), undefined)
  assert.equal(file.passwordOf('bob')?.toString(), 'two')
  rmSync(path)
  assert.equal(file.passwordOf('bob'), undefined)
})

test('secrets: an old file is read once, whoever asks', async () => {
  const { file, path } = secretsFile('alice:one\n')
  utimesSync(path, 1e9, 1e9)
  // Its inode changed just now, so it has to settle before it is trusted to stay.
  await new Promise((resolve) => setTimeout(resolve, 2100))
  const first = file.passwordOf('alice')
  assert.equal(first?.toString(), 'one')
  assert.equal(file.passwordOf('alice'), first, 'the same buffer: it was not read again')
})
