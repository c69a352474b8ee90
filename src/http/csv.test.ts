import assert from 'node:assert/strict'
import { test } from 'node:test'
import { csvLine } from './csv.ts'

const CASES = [
  { name: 'plain', cells: ['a', 1, ''], line: 'a,1,\r\n' },
  {
    name: 'commas, quotes and line ends',
    cells: ['a,b', 'say "x"', 'two\nlines'],
    line: '"a,b","say ""x""","two\nlines"\r\n',
  },
  {
    name: 'what would be a formula',
    cells: ['=1+1', '+1', '-1', '@x', -1],
    line: "'=1+1,'+1,'-1,'@x,-1\r\n",
  },
]

for (const { name, cells, line } of CASES) test(`csv: ${name}`, () => assert.equal(csvLine(cells), line))
