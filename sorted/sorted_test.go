package sorted_test

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"flanneld/sorted"
)

// pair has a key and a value beside it.
type pair struct{ key, value int }

func byKey(a, b pair) int { return cmp.Compare(a.key, b.key) }

// contents returns what a map has as a sorted list.
func contents(m map[int]int) []pair {
	out := []pair{}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, pair{k, m[k]})
	}
	return out
}

// collected is All, never nil.
func collected(s sorted.Snapshot[pair]) []pair { return append([]pair{}, slices.Collect(s.All())...) }

// TestASetIsWhatAMapIs changes a set at random, and compares it and its snapshots with maps.
func TestASetIsWhatAMapIs(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for _, keys := range []int{3, 100, 5000} {
		set, want := sorted.New(byKey), map[int]int{}
		var last sorted.Snapshot[pair]
		lastWant := map[int]int{}
		for round := range 300 {
			grow := rnd.IntN(4)
			for range rnd.IntN(50) {
				k, v := rnd.IntN(keys), rnd.IntN(3)
				if rnd.IntN(4) >= grow {
					_, there := want[k]
					if set.Delete(pair{key: k}) != there {
						t.Fatalf("round %d: delete of %d does not say %t", round, k, there)
					}
					delete(want, k)
				} else {
					set.Put(pair{k, v})
					want[k] = v
				}
			}
			now := set.Freeze()
			check(t, now, want)
			check(t, last, lastWant)
			checkChanges(t, last, now, lastWant, want)
			if rnd.IntN(3) == 0 {
				last, lastWant = now, maps.Clone(want)
			}
			if t.Failed() {
				t.Fatalf("round %d of %d keys", round, keys)
			}
		}
	}
}

func check(t *testing.T, s sorted.Snapshot[pair], want map[int]int) {
	t.Helper()
	all := contents(want)
	if got := collected(s); !slices.Equal(got, all) || s.Len() != len(all) {
		t.Errorf("%d values %v, want %v", s.Len(), got, all)
	}
	for _, k := range []int{-1, 0, 50, 99, 1 << 30} {
		v, ok := s.Find(pair{key: k})
		if value, there := want[k]; ok != there || ok && v != (pair{k, value}) {
			t.Errorf("find %d: %v %t", k, v, ok)
		}
		i, _ := slices.BinarySearchFunc(all, pair{key: k}, byKey)
		if got := slices.Collect(s.From(pair{key: k})); !slices.Equal(got, all[i:]) {
			t.Errorf("from %d: %v", k, got)
		}
		tens := slices.DeleteFunc(slices.Clone(all), func(p pair) bool { return p.key/10 != k/10 })
		if got := slices.Collect(s.Like(func(p pair) int { return cmp.Compare(k/10, p.key/10) })); !slices.Equal(got, tens) {
			t.Errorf("like %d: %v, want %v", k, got, tens)
		}
	}
}

func checkChanges(t *testing.T, before, after sorted.Snapshot[pair], b, a map[int]int) {
	t.Helper()
	made := maps.Clone(b)
	for from, to := range sorted.Changes(before, after) {
		switch {
		case to == nil:
			delete(made, from.key)
		case from != nil && *from == *to:
			t.Errorf("%v is no change", *from)
		default:
			made[to.key] = to.value
		}
		if from != nil && *from != (pair{from.key, b[from.key]}) {
			t.Errorf("%v was not there", *from)
		}
	}
	if !maps.Equal(made, a) {
		t.Errorf("the changes lead to %v, want %v", made, a)
	}
}

func TestValuesOfOneKeyStayInTheirOrder(t *testing.T) {
	list := sorted.Of(byKey, []pair{{2, 9}, {1, 1}, {2, 8}})
	if got, want := slices.Collect(list.All()), []pair{{1, 1}, {2, 9}, {2, 8}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	set := sorted.New(byKey)
	set.Put(pair{2, 9})
	var got []string
	for from, to := range sorted.Changes(list, set.Freeze()) {
		got = append(got, fmt.Sprint(*from, to))
	}
	if want := []string{"{1 1} <nil>", "{2 8} <nil>"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestAChangeCostsWhatChanges counts comparisons instead of time.
func TestAChangeCostsWhatChanges(t *testing.T) {
	compared := 0
	set := sorted.New(func(a, b pair) int {
		compared++
		return byKey(a, b)
	})
	const n = 100_000
	for i := range n {
		set.Put(pair{2 * i, 0})
	}
	before := set.Freeze()
	compared = 0
	set.Put(pair{n + 1, 0})
	set.Delete(pair{key: n / 2})
	changes := 0
	for range sorted.Changes(before, set.Freeze()) {
		changes++
	}
	if changes != 2 || compared > 500 {
		t.Errorf("%d changes, %d comparisons", changes, compared)
	}
}

func BenchmarkSet(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 65_536} {
		set := sorted.New(byKey)
		for i := range n {
			set.Put(pair{2 * i, 0})
		}
		b.Run(fmt.Sprintf("one change and its difference/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			before := set.Freeze()
			for i := 0; b.Loop(); i++ {
				k := pair{i*7919%n | 1, i}
				set.Put(k)
				set.Delete(pair{key: k.key - 2})
				after := set.Freeze()
				for range sorted.Changes(before, after) {
				}
				before = after
			}
		})
	}
}
