import assert from 'node:assert/strict'
import test from 'node:test'
import { fileNameOf, schemeOf, showUrl, withSuffix } from './url.ts'

const SHOWN = [
  { name: 'plain', url: 'http://h/os802.tar', shown: 'http://h/os802.tar' },
  { name: 'user and password', url: 'https://me:secret@h:8443/a', shown: 'https://h:8443/a' },
  { name: 'token as user', url: 'https://token@h/a', shown: 'https://h/a' },
  { name: 'query and fragment', url: 'http://h/a?sig=secret#f', shown: 'http://h/a?...' },
]
for (const { name, url, shown } of SHOWN)
  test(`showUrl: ${name}`, () => {
    const given = new URL(url)
    assert.equal(showUrl(given), shown)
    assert.equal(given.href, url, 'the URL itself is left alone')
  })

test('withSuffix puts the suffix before the query', () => {
  assert.equal(withSuffix(new URL('http://h/a.tar?x=1'), '.md5').href, 'http://h/a.tar.md5?x=1')
})

test('fileNameOf decodes where it can', () => {
  assert.equal(fileNameOf(new URL('http://h/d/os%20802.tar?x=/y')), 'os 802.tar')
  assert.equal(fileNameOf(new URL('http://h/d/100%.tar')), '100%.tar')
})

test('schemeOf', () => {
  assert.equal(schemeOf('HTTPS://h/'), 'https')
  assert.equal(schemeOf('/srv/builds'), '')
})
