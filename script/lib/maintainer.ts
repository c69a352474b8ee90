/** Who answers for a package: as Debian's tools have it, in the environment; else an address that is none. */
export function maintainer(environment: NodeJS.ProcessEnv = process.env): string {
  const { DEBFULLNAME, DEBEMAIL } = environment
  // "A Name <address>" is all of it, as for Debian's own.
  if (DEBEMAIL?.includes('<')) return DEBEMAIL
  return `${DEBFULLNAME || 'The upserv authors'} <${DEBEMAIL || 'upserv@packages.invalid'}>`
}

/** Whether mail to that address may reach anybody: names under .invalid, .example, .test and .localhost are nobody's. */
export function isReachable(maintainer: string): boolean {
  return (
    /<[^<>@\s]+@[^<>@\s]+\.[^<>@\s]+>$/.test(maintainer) &&
    !/[@.](?:invalid|example|test|localhost)>$/i.test(maintainer)
  )
}
