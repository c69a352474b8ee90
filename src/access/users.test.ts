/** The list of users means what the documentation says, and nothing that rsyncd.conf would make of it. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseUserRule } from './users.ts'

for (const [text, user, admitted] of [
  ['alice', 'alice', true],
  ['bob:ro', 'bob', true],
  ['carol:deny', 'carol', false],
  ['a-b_c.d', 'a-b_c.d', true],
  ['jürgen', 'j\xc3\xbcrgen', true],
] as const) {
  test(`auth_users: "${text}"`, () => assert.deepEqual(parseUserRule(text), { user, admitted }))
}

for (const [text, why] of [
  ['alice,bob', /one entry for each user/],
  ['alice bob', /one entry for each user/],
  ['alice, bob:deny', /one entry for each user/],
  [' alice', /one entry for each user/],
  ['alice\n', /one entry for each user/],
  ['@', /no name of a group/],
  ['@@wheel', /no name of a group/],
  ['@wheel*', /patterns of users/],
  ['cert:', /no name in a certificate/],
  ['cert:a:b', /":ro" or ":deny", nothing else/],
  ['*', /patterns of users/],
  ['al?ce', /patterns of users/],
  ['[ab]*:deny', /patterns of users/],
  ['alice:rw', /nobody can write/],
  ['alice:DENY', /":ro" or ":deny", nothing else/],
  ['alice:', /":ro" or ":deny", nothing else/],
  ['alice:ro:deny', /":ro" or ":deny", nothing else/],
  ['', /no name of a user/],
  [':deny', /no name of a user/],
  ['#alice', /no name of a user/],
  ['al\x00ice', /no name of a user/],
] as const) {
  test(`user list parsed differently than documented: ${JSON.stringify(text)} is refused`, () => {
    const result = parseUserRule(text)
    assert.ok(typeof result === 'string', 'it was taken')
    assert.match(result, why)
  })
}

test('auth_users: groups and certificates', () => {
  assert.deepEqual(parseUserRule('@staff'), { group: 'staff', admitted: true })
  assert.deepEqual(parseUserRule('@staff:deny'), { group: 'staff', admitted: false })
  assert.deepEqual(parseUserRule('cert:xo-*.example.org'), {
    certificate: 'xo-*.example.org',
    admitted: true,
  })
  assert.deepEqual(parseUserRule('cert:xo-7:deny'), { certificate: 'xo-7', admitted: false })
})
