import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deviceNames } from './device-names.ts'

const CASES: {
  name: string
  cn?: string | string[]
  san?: string
  map?: Record<string, string>
  devices: string[]
}[] = [
  { name: 'a common name', cn: 'laptop-7', devices: ['laptop-7'] },
  {
    name: 'alternative names behind it',
    cn: 'a',
    san: 'DNS:b.example, URI:urn:dev:1, email:c@d',
    devices: ['a', 'b.example', 'urn:dev:1', 'c@d'],
  },
  { name: 'one that is said twice', cn: 'a', san: 'DNS:a', devices: ['a'] },
  {
    name: 'addresses and other kinds are no names',
    san: 'IP Address:127.0.0.1, othername:x, DNS:a',
    devices: ['a'],
  },
  {
    name: 'a name that holds another',
    san: String.raw`DNS:"evil\u002c DNS:laptop-7"`,
    devices: ['evil, DNS:laptop-7'],
  },
  {
    name: 'a quote within quotes',
    san: String.raw`DNS:"evil\", DNS:b", DNS:c`,
    devices: ['evil", DNS:b', 'c'],
  },
  { name: 'what breaks a line', cn: 'a\nb', san: 'DNS:c', devices: ['c'] },
  { name: 'what turns the direction of text', cn: 'a\u202eb', devices: [] },
  { name: 'one that is too long', cn: 'x'.repeat(256), devices: [] },
  { name: 'too many', cn: Array.from({ length: 17 }, (_, n) => `n${n}`), devices: [] },
  { name: 'none', devices: [] },
  {
    name: 'by a map',
    cn: 'serial-1',
    san: 'DNS:serial-2',
    map: { 'serial-2': 'library' },
    devices: ['library'],
  },
  { name: 'a map that has none of them', cn: 'serial-1', map: { x: 'library' }, devices: [] },
  { name: 'a name that every object has', cn: 'constructor', map: { x: 'library' }, devices: [] },
]

for (const { name, cn, san, map, devices } of CASES) {
  test(`names of a certificate: ${name}`, () => {
    const subject = { CN: cn } as never
    assert.deepEqual(
      deviceNames({ subject, ...(san === undefined ? {} : { subjectaltname: san }) }, map),
      devices,
    )
  })
}
