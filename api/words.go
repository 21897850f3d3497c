package api

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// nouns are the words for the kinds of Status.Drift.
var nouns = map[string]string{
	"link": "network device", "addr": "address", "fdb": "forwarding entry", "neigh": "neighbour entry", "route": "route",
	"firewall": "firewall rule set", "wireguard": "WireGuard device",
}

// Repaired says what was repaired after another program had changed or deleted it, as one phrase.
func (s Status) Repaired() string {
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(s.Drift)) {
		n := s.Drift[kind]
		if n == 0 {
			continue
		}
		parts = append(parts, Count(n, object(kind)))
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

// Objects names the objects of one kind of Status.Drift.
func Objects(kind string) string {
	return plural(object(kind))
}

func object(kind string) string {
	if noun := nouns[kind]; noun != "" {
		return noun
	}
	return kind // of a later version
}

// String says what the probes have found, as one phrase.
func (p ProbeSummary) String() string {
	if p.Peers == 0 {
		return "no peer probed yet"
	}
	parts := []string{Count(uint64(p.Peers), "peer") + " probed"}
	for _, c := range []struct {
		n    int
		text string
	}{
		{p.Failing, "without an answer"}, {p.OneWay, "of these reached in one direction only"},
		{p.SmallMTU, "with a path MTU that is too small"}, {p.Silent, "whose daemon does not answer"},
	} {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.text))
		}
	}
	if len(parts) == 1 {
		parts = append(parts, "all answer")
	}
	return strings.Join(parts, ", ")
}

// PeersText counts the peers, as one phrase.
func (s Status) PeersText() string {
	text := fmt.Sprintf("%d installed, %d not installed", s.Peers-s.Failing, s.Failing)
	if s.Kept > 0 {
		text += fmt.Sprintf(", %d stale (their records are missing in the store, packets are still sent to them)", s.Kept)
	}
	if s.Skipped > 0 {
		text += ", " + Count(uint64(s.Skipped), "invalid record") + " skipped"
	}
	return text
}

// Size writes a number of bytes, with three digits.
func Size(n uint64) string {
	size := float64(n)
	for _, unit := range []string{"B", "kB", "MB", "GB"} {
		if size < 1000 {
			return fmt.Sprintf("%.3g", size) + " " + unit
		}
		size /= 1000
	}
	return fmt.Sprintf("%.0f TB", size)
}

// Count puts a number before a noun.
func Count(n uint64, noun string) string {
	if n != 1 {
		noun = plural(noun)
	}
	return fmt.Sprintf("%d %s", n, noun)
}

func plural(noun string) string {
	switch {
	case strings.HasSuffix(noun, "y"):
		return strings.TrimSuffix(noun, "y") + "ies"
	case strings.HasSuffix(noun, "s"):
		return noun + "es"
	}
	return noun + "s"
}
