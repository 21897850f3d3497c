package firewall

import (
	"fmt"
	"slices"
	"strings"

	"flanneld/sorted"
)

// change is what a set lacks and what it has too much.
type change struct {
	set      set // without elements
	del, add []element
}

// shape describes everything of the set but its elements.
func (s set) shape() string {
	s.elems = sorted.Snapshot[element]{}
	return fmt.Sprintf("%+v\n", s)
}

// shape describes everything of the chain.
func (c chain) shape() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %d %d %t\n", c.name, c.kind, c.hook, c.priority, c.drop)
	for _, r := range c.rules {
		b.WriteString(canonical(r.exprs) + "\n")
	}
	return b.String()
}

// shape describes everything of the table but the elements of its sets. Tables of equal shape are made equal by changes
// of elements.
func (t table) shape() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %x\n", t.name, t.flags)
	for _, s := range t.sets {
		b.WriteString(s.shape())
	}
	for _, c := range t.chains {
		b.WriteString(c.shape())
	}
	return b.String()
}

// changes returns what makes the sets of have those of want, a table of the same shape.
func changes(have, want table) []change {
	var out []change
	for i, s := range want.sets {
		c := change{set: s}
		c.set.elems = sorted.Snapshot[element]{}
		c.del, c.add = subtract(have.sets[i].elems, s.elems)
		if len(c.del)+len(c.add) > 0 {
			out = append(out, c)
		}
	}
	return out
}

// subtract returns what only a has and what only b has.
func subtract(a, b sorted.Snapshot[element]) (onlyA, onlyB []element) {
	for inA, inB := range sorted.Changes(a, b) {
		if inA != nil {
			onlyA = append(onlyA, *inA)
		} else {
			onlyB = append(onlyB, *inB)
		}
	}
	return onlyA, onlyB
}

// differences counts what is not the same in both tables: chains, sets, and elements of sets that are alike otherwise;
// a whole table counts as one.
func differences(a, b table) int {
	if a.name != b.name {
		return 1
	}
	n := 0
	if a.flags != b.flags {
		n++
	}
	for _, c := range a.chains {
		if !slices.ContainsFunc(b.chains, func(d chain) bool { return c.shape() == d.shape() }) {
			n++
		}
	}
	for _, s := range a.sets {
		i := slices.IndexFunc(b.sets, func(o set) bool { return s.shape() == o.shape() })
		if i < 0 {
			n++
			continue
		}
		less, more := subtract(s.elems, b.sets[i].elems)
		n += len(less) + len(more)
	}
	return n + max(0, len(b.chains)-len(a.chains)) + max(0, len(b.sets)-len(a.sets))
}
