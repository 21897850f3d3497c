package main

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// lines renders events: seconds after the start, action, test, seconds that it took.
func lines(events ...[4]any) string {
	var b strings.Builder
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, e := range events {
		at := start.Add(time.Duration(e[0].(int)) * time.Second)
		fmt.Fprintf(&b, `{"Time":%q,"Action":%q,"Package":"flanneld/lab","Test":%q,"Elapsed":%v}`+"\n",
			at.Format(time.RFC3339), e[1], e[2], e[3])
	}
	return b.String()
}

func TestTheTimeOfATestIsThatInWhichItRuns(t *testing.T) {
	r := newReport(&strings.Builder{}, false)
	r.read(strings.NewReader(lines(
		[4]any{0, "run", "TestMany", 0},
		[4]any{3, "run", "TestMany/one", 0},
		[4]any{3, "pause", "TestMany/one", 0},
		[4]any{4, "run", "TestMany/two", 0},
		[4]any{4, "pause", "TestMany/two", 0},
		[4]any{4, "run", "TestPlain", 0},
		[4]any{5, "run", "TestPlain/case", 0},
		[4]any{9, "pass", "TestPlain/case", 4},
		[4]any{9, "pass", "TestPlain", 5},
		[4]any{10, "cont", "TestMany/one", 0},
		[4]any{17, "pass", "TestMany/one", 7},
		[4]any{17, "cont", "TestMany/two", 0},
		[4]any{27, "pass", "TestMany/two", 10},
		[4]any{27, "pass", "TestMany", 27},
	)))
	var got []string
	for _, u := range r.units() {
		got = append(got, fmt.Sprint(u.name, " ", u.took))
	}
	if want := "TestMany/two 10s, TestMany/one 7s, TestPlain 5s, TestMany 4s"; strings.Join(got, ", ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, ", "), want)
	}
}

func TestASlowTestNeedsAReason(t *testing.T) {
	root := fstest.MapFS{
		"lab/a_test.go": {Data: []byte("package lab\n\n// TestWithReason is long.\n//\n// Slow: a lease has to expire.\n" +
			"func TestWithReason() {}\n")},
		"lab/b_test.go": {Data: []byte("package lab\n\n// TestWithout is long.\nfunc TestWithout() {}\n")},
	}
	for name, want := range map[string]bool{"TestWithReason": true, "TestWithReason/case": true, "TestWithout": false,
		"TestUnknown": false} {
		var out strings.Builder
		r := newReport(&out, false)
		r.read(strings.NewReader(lines([4]any{0, "run", name, 0}, [4]any{0, "cont", name, 0}, [4]any{0, "pause", name, 0},
			[4]any{31, "pass", name, 31})))
		if got := r.explained(root, 30*time.Second); got != want {
			t.Errorf("%s: %t, want %t\n%s", name, got, want, &out)
		}
		if !r.explained(root, time.Minute) || !r.explained(root, 0) {
			t.Errorf("%s needs a reason although it was fast enough", name)
		}
	}
}

func TestAFailedTestIsPrintedWithWhatItSaid(t *testing.T) {
	var out strings.Builder
	r := newReport(&out, false)
	r.read(strings.NewReader(`{"Action":"run","Package":"p","Test":"TestBad"}
{"Action":"output","Package":"p","Test":"TestBad","Output":"got 1, want 2\n"}
{"Action":"fail","Package":"p","Test":"TestBad","Elapsed":1}
{"Action":"output","Package":"p","Test":"TestGood","Output":"all is well\n"}
{"Action":"pass","Package":"p","Test":"TestGood","Elapsed":1}
{"Action":"fail","Package":"p","Elapsed":2}
what make says
`))
	if want := "--- FAIL: p TestBad (1s)\ngot 1, want 2\nFAIL p 2.0s\nwhat make says\n"; out.String() != want ||
		r.passed() {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
	out.Reset()
	r.failures()
	if want := "failed: p TestBad\n\tgot 1, want 2\nfailed: p \n"; out.String() != want {
		t.Errorf("at the end\n%swant\n%s", &out, want)
	}
}
