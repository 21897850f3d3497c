package options_test

import (
	"bytes"
	"net/netip"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"flanneld/dist/manual"
	"flanneld/options"
)

var variableLine = regexp.MustCompile(`(?m)^#(FLANNELD_[A-Z0-9_]+=.*)$`)

func TestEveryFlagStandsInTheConfigurationFileWithItsDefault(t *testing.T) {
	flags := 0
	for _, g := range options.Groups() {
		flags += len(g.Flags)
	}
	var environ []string
	for _, m := range variableLine.FindAllStringSubmatch(manual.Config(), -1) {
		environ = append(environ, m[1])
	}
	if got, want := len(environ), flags-1; got != want || want < 30 {
		t.Fatalf("the file has %d variables, want one for each of %d flags", got, want)
	}
	var stderr bytes.Buffer
	got, err := options.Parse(nil, environ, &stderr)
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("defaults of the file: %v\n%s", err, &stderr)
	}
	want, err := options.Parse(nil, nil, &stderr)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}),
		cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("the file's defaults are not the daemon's (-want +got):\n%s", diff)
	}
}
