package subnet_test

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flanneld/subnet"
)

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

const dualStackEnv = `FLANNEL_NETWORK=10.5.0.0/16
FLANNEL_SUBNET=10.5.34.1/24
FLANNEL_IPV6_NETWORK=fd00:5::/48
FLANNEL_IPV6_SUBNET=fd00:5:0:22::1/64
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
`

func TestSubnetFileHasExactlyTheLinesThatRuntimesRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "subnet.env")
	e := subnet.Env{
		Networks: prefixes("10.5.0.0/16", "fd00:5::/48"), Subnets: prefixes("10.5.34.0/24", "fd00:5:0:22::/64"),
		MTU: 1450, IPMasq: true,
	}
	if err := subnet.WriteEnv(path, e); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(got), dualStackEnv); diff != "" {
		t.Errorf("subnet.env (-got +want):\n%s", diff)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("mode %v, %v, want 0644", info.Mode(), err)
	}
	back, err := subnet.ReadEnv(path)
	if diff := cmp.Diff(back, e, equate); diff != "" || err != nil {
		t.Errorf("read back: %v (-got +want):\n%s", err, diff)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) > 0 {
		t.Errorf("temporary files left: %v", left)
	}
}

func TestSubnetFileLeavesOutAFamilyThatIsOff(t *testing.T) {
	e := subnet.Env{Networks: prefixes("10.5.0.0/16"), Subnets: prefixes("10.5.34.0/24"), MTU: 1500}
	got, err := e.MarshalText()
	want := "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.34.1/24\nFLANNEL_MTU=1500\nFLANNEL_IPMASQ=false\n"
	if string(got) != want || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestWritingTheSameSubnetFileAgainLeavesItAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "subnet.env")
	e := subnet.Env{Networks: prefixes("10.5.0.0/16"), Subnets: prefixes("10.5.34.0/24"), MTU: 1500}
	stat := func() os.FileInfo {
		if err := subnet.WriteEnv(path, e); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	if first := stat(); !os.SameFile(first, stat()) {
		t.Error("the file was replaced")
	}
	e.MTU = 1450
	if first := stat(); first.Size() == 0 {
		t.Error("the file is empty")
	}
}

func TestReadEnvRefusesRubbishAndSaysWhere(t *testing.T) {
	if _, err := subnet.ReadEnv(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want not exist", err)
	}
	for _, text := range []string{"FLANNEL_SUBNET=10.5.0.1", "FLANNEL_MTU=many", "FLANNEL_IPMASQ=maybe",
		"FLANNEL_NETWORK=10.5.0.0/16,"} {
		var e subnet.Env
		if err := e.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

func TestLinesOfOthersInTheSubnetFileStay(t *testing.T) {
	e := subnet.Env{Networks: prefixes("10.5.0.0/16"), Subnets: prefixes("10.5.34.0/24"), MTU: 1450, IPMasq: true}
	const (
		ours   = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.34.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
		docker = "DOCKER_OPT_BIP=\"--bip=10.5.34.1/24\"\nDOCKER_OPTS=\" --bip=10.5.34.1/24\"\n"
	)
	for _, c := range []struct{ name, old, want string }{
		{"a script replaced the file by its own options", docker, ours + docker},
		{"a script appended its options: nothing to do", ours + docker, ours + docker},
		{"others stand before ours: nothing to do", docker + ours, docker + ours},
		{"an older subnet of ours goes, what others wrote stays", "FLANNEL_SUBNET=10.5.9.1/24\n# by hand\n\n" + docker +
			"FLANNEL_MTU=1500\n", ours + "# by hand\n\n" + docker},
		{"lines of ours with export are ours", "export FLANNEL_SUBNET=10.5.9.1/24\nexport X=1\n", ours + "export X=1\n"},
		{"a doubled line of ours goes", ours + "FLANNEL_MTU=9000\n", ours},
		{"keys that only begin like ours are another's", "FLANNEL_MTU_EXTRA=1\nFLANNEL_DNS=192.0.2.1\n", ours +
			"FLANNEL_MTU_EXTRA=1\nFLANNEL_DNS=192.0.2.1\n"},
		{"a last line without an end gets one", ours + "X=1", ours + "X=1"},
		{"a last line without an end gets one when ours change", "X=1", ours + "X=1\n"},
		{"a family that is off goes", "FLANNEL_IPV6_NETWORK=fd00:5::/48\nFLANNEL_IPV6_SUBNET=fd00:5::1/64\n" + ours, ours},
	} {
		path := filepath.Join(t.TempDir(), "subnet.env")
		if err := os.WriteFile(path, []byte(c.old), 0o644); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time nothing changes
			if err := subnet.WriteEnv(path, e); err != nil {
				t.Fatal(err)
			}
			if got, _ := os.ReadFile(path); string(got) != c.want {
				t.Errorf("%s (-got +want):\n%s", c.name, cmp.Diff(string(got), c.want))
			}
		}
	}
}

func TestTheLastOfDoubledLinesOfTheSubnetFileCounts(t *testing.T) {
	const doubled = "FLANNEL_SUBNET=nonsense\nFLANNEL_MTU=9000\nFLANNEL_IPV6_SUBNET=fd00:9::1/64\n" + dualStackEnv
	var got, want subnet.Env
	if err := got.UnmarshalText([]byte(doubled)); err != nil {
		t.Fatal(err)
	}
	if err := want.UnmarshalText([]byte(dualStackEnv)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, want, equate); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
	exports := "export FLANNEL_MTU=\"1400\"\n\texport\tFLANNEL_SUBNET=10.5.1.1/24\r\n"
	if err := want.UnmarshalText([]byte(exports)); err != nil || want.MTU != 1400 || len(want.Subnets) != 1 {
		t.Errorf("lines with export: %+v, %v", want, err)
	}
}

func FuzzEnv(f *testing.F) {
	f.Add([]byte(dualStackEnv))
	f.Add([]byte("FLANNEL_NETWORK=10.5.0.0/16,10.6.0.0/16\n# remark\nFLANNEL_MTU='1450'"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var e, again subnet.Env
		if e.UnmarshalText(text) != nil {
			return
		}
		out, err := e.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if err := again.UnmarshalText(out); err != nil && len(e.Subnets) < 2 {
			t.Errorf("written as %q: %v", out, err)
		}
	})
}
