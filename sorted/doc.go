// Package sorted holds sets that stay sorted while they change, and hand out immutable snapshots of themselves. Two
// snapshots of one set share all but the pages that have changed between them, so that both keeping and comparing them
// costs what has changed.
package sorted
