package foreign

import (
	"fmt"
	"slices"
	"strings"
)

// iptTable is one table of iptables, as "iptables -S" prints it.
type iptTable struct {
	policies map[string]string   // of the chains that the kernel calls
	rules    map[string][]string // by chain, in order, as what follows "-A CHAIN "
}

func parseIPT(text string) iptTable {
	t := iptTable{policies: map[string]string{}, rules: map[string][]string{}}
	for line := range strings.Lines(text) {
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		chain, rule, _ := strings.Cut(rest, " ")
		switch verb {
		case "-P":
			t.policies[chain] = rule
			t.rules[chain] = nil
		case "-N":
			t.rules[chain] = nil
		case "-A":
			t.rules[chain] = append(t.rules[chain], rule)
		}
	}
	return t
}

func (t iptTable) has(chain string) bool {
	_, ok := t.rules[chain]
	return ok
}

// target returns what a rule jumps to, and whether it does so with every packet.
func target(rule string) (name string, always bool) {
	w := words(rule)
	i := slices.IndexFunc(w, func(w string) bool { return w == "-j" || w == "-g" })
	if i < 0 || i+1 >= len(w) {
		return "", false
	}
	comment := i == 4 && slices.Equal(w[:3], []string{"-m", "comment", "--comment"})
	return w[i+1], i == 0 || comment
}

// words splits a rule; what stands in double quotes is one word.
func words(rule string) []string {
	var out []string
	for i, part := range strings.Split(strings.ReplaceAll(rule, `\"`, "'"), `"`) {
		if i%2 == 1 {
			out = append(out, part)
		} else {
			out = append(out, strings.Fields(part)...)
		}
	}
	return out
}

// jumps reports whether a chain has a rule that leads to another one.
func (t iptTable) jumps(from, to string) bool {
	return slices.ContainsFunc(t.rules[from], func(r string) bool { name, _ := target(r); return name == to })
}

// end returns the index of the first rule behind which no packet gets: where what is to be met must stand before.
func (t iptTable) end(chain string) int {
	i := slices.IndexFunc(t.rules[chain], func(r string) bool {
		name, always := target(r)
		return always && slices.Contains([]string{"RETURN", "DROP", "REJECT"}, name)
	})
	if i < 0 {
		return len(t.rules[chain])
	}
	return i
}

// hook is a chain of ours and where a packet gets into it.
type hook struct {
	chain string
	rules []string // nil: the chain is not wanted
	from  string   // the chain with the jump; empty: none
	first bool     // the jump stands first, else before the end
}

// plan returns the lines of an iptables-restore that make the table hold h; none if it does. A jump stands once in the
// table.
func (t iptTable) plan(h hook) []string {
	var lines []string
	if h.rules == nil {
		lines = t.unhook(h.chain, "")
		if t.has(h.chain) {
			lines = append(lines, "-F "+h.chain, "-X "+h.chain)
		}
		return lines
	}
	if !t.has(h.chain) || !slices.Equal(t.rules[h.chain], h.rules) {
		lines = append(lines, fmt.Sprintf(":%s - [0:0]", h.chain)) // creates or empties it
		for _, r := range h.rules {
			lines = append(lines, fmt.Sprintf("-A %s %s", h.chain, r))
		}
	}
	lines = append(lines, t.unhook(h.chain, h.from)...)
	if h.from == "" {
		return lines
	}
	var at []int // indices of the jump
	for i, r := range t.rules[h.from] {
		if name, _ := target(r); name == h.chain {
			at = append(at, i)
		}
	}
	if len(at) == 1 && h.right(at[0], t) {
		return lines
	}
	for _, i := range at {
		lines = append(lines, fmt.Sprintf("-D %s %s", h.from, t.rules[h.from][i]))
	}
	position := 0
	if !h.first {
		position = t.end(h.from)
		for _, i := range at {
			if i < t.end(h.from) {
				position--
			}
		}
	}
	return append(lines, fmt.Sprintf("-I %s %d -j %s", h.from, position+1, h.chain))
}

// right reports whether the jump at an index stands where it should.
func (h hook) right(at int, t iptTable) bool {
	if h.first {
		return at == 0
	}
	return at < t.end(h.from)
}

// unhook returns the lines that delete the jumps to a chain from all chains but one.
func (t iptTable) unhook(chain, but string) []string {
	var lines []string
	for _, from := range t.names() {
		if from == but {
			continue
		}
		for _, r := range t.rules[from] {
			if name, _ := target(r); name == chain {
				lines = append(lines, fmt.Sprintf("-D %s %s", from, r))
			}
		}
	}
	return lines
}

// names returns the names of the chains, sorted.
func (t iptTable) names() []string {
	var names []string
	for n := range t.rules {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// script returns the whole input of iptables-restore --noflush.
func script(table string, lines []string) string {
	return "*" + table + "\n" + strings.Join(lines, "\n") + "\nCOMMIT\n"
}
