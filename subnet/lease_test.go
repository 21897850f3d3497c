package subnet_test

import (
	"strings"
	"testing"

	"flanneld/subnet"
)

func TestKeyAndParseKeyAreInverse(t *testing.T) {
	for _, key := range []string{"10.5.34.0-24", "10.5.34.0-24&fd00:5:0:22::-64", "fd00:5:0:22::-64"} {
		p, err := subnet.ParseKey(key)
		if err != nil {
			t.Fatal(err)
		}
		if got := subnet.Key(p); got != key {
			t.Errorf("got %q, want %q", got, key)
		}
	}
}

func TestParseKeyRefusesWhatKeyWouldNotWrite(t *testing.T) {
	for _, key := range []string{
		"", "-", "10.5.34.0", "10.5.34.0-33", "10.5.34.1-24", "10.5.34.0-024", "fd00:5:0:22::-64&10.5.34.0-24",
		"10.5.34.0-24&10.5.35.0-24", "10.5.34.0-24&", "fd00:5:0:0022::-64", "FD00::-64", "fe80::%eth0-64",
		"::ffff:10.5.34.0-120",
		"10.5.34.0-24&fd00::-64&fd01::-64", "a-b", "10.5.34.0/24",
	} {
		if p, err := subnet.ParseKey(key); err == nil {
			t.Errorf("%q was read as %v", key, p)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add("10.5.34.0-24&fd00:5:0:22::-64")
	f.Fuzz(func(t *testing.T, key string) {
		if p, err := subnet.ParseKey(key); err == nil && subnet.Key(p) != key {
			t.Errorf("%q was read as %v", key, p)
		}
	})
}

func TestAHostNameIsFitForALogLineAndLeftAsItIsFromThenOn(t *testing.T) {
	for name, want := range map[string]string{
		"node-1.example.org": "node-1.example.org", "häuser": "häuser", "a b\tc\nd": "a?b?c?d", "\x1b[31m": "?[31m",
		"a\xffb":  "a?b",
		"\u009bm": "?m", "a\u202eb": "a?b", strings.Repeat("ä", 200): strings.Repeat("ä", 126), "": "",
	} {
		got := subnet.HostName(name)
		if got != want || subnet.HostName(got) != got {
			t.Errorf("%q is %q, then %q, want %q", name, got, subnet.HostName(got), want)
		}
	}
}
