/**
 * The `[[module]]` tables of upserv.toml: who may have which module. docs/configuration.md, "Who may come in".
 *
 * Everything here is refused rather than guessed at: a rule that is read otherwise than it was meant lets
 * somebody in.
 */
import { isAbsolute } from 'node:path'
import { z } from 'zod'
import { whyNoNetwork } from '../access/hosts.ts'
import type { ModuleRules } from '../access/policy.ts'
import {
  type FetchRule,
  parseFetchRule,
  parseMember,
  parseUserRule,
  type UserRule,
  type Who,
} from '../access/users.ts'
import { nearest } from '../lib/nearest.ts'
import { whyNoPattern } from '../rsync/hidden-tree.ts'
import { REFUSABLE_OPTIONS } from '../rsync/refusals.ts'

/** A list of texts, each of which must pass. One text alone is refused: it might be meant as several. */
function listOf(what: string, whyNot: (text: string) => string | undefined) {
  const item = z.string(`${what} are texts`).superRefine((text, context) => {
    const problem = whyNot(text)
    if (problem !== undefined) context.addIssue({ code: 'custom', message: problem })
  })
  return z.array(item, `${what} are a list, such as ["..."]`)
}

/** `hosts_allow` and `hosts_deny`. */
export const networksSchema = listOf('addresses and networks', whyNoNetwork)

const usersSchema = listOf('users', (text) => {
  const rule = parseUserRule(text)
  return typeof rule === 'string' ? rule : undefined
})
  .min(1, 'an empty list would let nobody in: leave the key out to let everybody in')
  .transform((texts) => texts.map((text) => parseUserRule(text) as UserRule))
  .refine((rules) => new Set(rules.map(nameOf)).size === rules.length, 'a user is named for the second time')

/** `fetch.allow` and `module.fetch_allow`. An empty list is a list of nobody. */
export const fetchRulesSchema = listOf('those who may have builds fetched', (text) => {
  const rule = parseFetchRule(text)
  return typeof rule === 'string' ? rule : undefined
}).transform((texts) => texts.map((text) => parseFetchRule(text) as FetchRule))

/** `[groups]`: members by the name of each group. */
export const groupsSchema = z.record(
  z.string().regex(/^[^\x00-\x20\x7f#@:*?[\],;][^\x00-\x20\x7f:*?[\],;]*$/, 'this is no name of a group'),
  listOf('members', (text) => {
    const member = parseMember(text)
    return typeof member === 'string' ? member : undefined
  }).transform((texts) => texts.map((text) => parseMember(text) as Who)),
)

function nameOf(rule: UserRule): string {
  if ('user' in rule) return `user ${rule.user}`
  return 'group' in rule ? `group ${rule.group}` : `certificate ${rule.certificate}`
}

/** Groups that are used and that nobody has defined: the first of them, and where it stands. */
export function unknownGroup(
  groups: Readonly<Record<string, unknown>>,
  places: Readonly<Record<string, readonly (UserRule | FetchRule)[] | undefined>>,
): { group: string; place: string } | undefined {
  for (const [place, rules = []] of Object.entries(places)) {
    for (const rule of rules) {
      if ('group' in rule && !Object.hasOwn(groups, rule.group)) return { group: rule.group, place }
    }
  }
  return undefined
}

const patternsSchema = listOf('patterns', whyNoPattern)

const optionsSchema = listOf('options', (text) => {
  if (REFUSABLE_OPTIONS.includes(text)) return undefined
  const known = nearest(text.replace(/^-+/, ''), REFUSABLE_OPTIONS)
  return `"${text}" is no option that can be refused${known ? `; did you mean "${known}"?` : ''}`
})

const absolutePath = z
  .string()
  .refine((path) => isAbsolute(path), 'the path of a secrets file is absolute, as "/etc/upserv/secrets"')

/** A module's name ends at a line end, and nothing in it may drive a terminal. */
const moduleName = z.string().regex(/^[^\x00-\x1f\x7f/]+$/, 'this is no name of a module')

export const moduleSchema = z.strictObject({
  name: moduleName.optional(),
  source: z.string().min(1).optional(),
  comment: z.string().optional(),
  list: z.boolean().optional(),
  auth_users: usersSchema.optional(),
  secrets_file: absolutePath.optional(),
  hosts_allow: networksSchema.default([]),
  hosts_deny: networksSchema.default([]),
  fetch_allow: fetchRulesSchema.optional(),
  max_connections: z.number().int().positive().max(100_000).optional(),
  timeout: z.number().positive().max(86_400).optional(),
  refuse_options: optionsSchema.default([]),
  include: patternsSchema.default([]),
  exclude: patternsSchema.default([]),
})

/** All tables, in the order in which they are tried. */
export const modulesSchema = z.array(
  moduleSchema.superRefine((table, context) => {
    const complain = (key: string, message: string): void =>
      context.addIssue({ code: 'custom', path: [key], message })
    if (table.name === undefined && table.source === undefined) {
      complain('name', 'a table says for which modules it is: by their name, or by the source of builds')
    }
    const mayLogIn = table.auth_users?.some((rule) => rule.admitted && !('certificate' in rule))
    if (mayLogIn && !table.secrets_file) complain('secrets_file', 'auth_users need one')
    if (table.secrets_file && !mayLogIn) {
      complain('auth_users', 'a secrets_file alone asks nobody for a password: name the users')
    }
    if (table.include.length > 0 && table.exclude.length === 0) {
      complain('exclude', 'include alone hides nothing: it makes exceptions from exclude')
    }
  }),
)

/** As the policy takes it. */
export function toModuleRules(table: z.output<typeof moduleSchema>): ModuleRules {
  return {
    name: table.name ?? '*',
    source: table.source,
    comment: table.comment,
    list: table.list,
    authUsers: table.auth_users ?? [],
    secretsFile: table.secrets_file,
    hosts: { allow: table.hosts_allow, deny: table.hosts_deny },
    fetchAllow: table.fetch_allow,
    maxConnections: table.max_connections,
    idleTimeoutMs: table.timeout === undefined ? undefined : table.timeout * 1000,
    refuseOptions: table.refuse_options,
    include: table.include,
    exclude: table.exclude,
  }
}
