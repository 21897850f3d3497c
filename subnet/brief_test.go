package subnet_test

import (
	"testing"

	"flanneld/subnet"
)

func TestBriefCutsNoCharacterInTwo(t *testing.T) {
	for text, want := range map[string]string{"": "", "four": "four", "fives": "five …", "abcäf": "abc …"} {
		if got := subnet.Brief(text, 4); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}
