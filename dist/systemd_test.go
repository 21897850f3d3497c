package dist_test

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"flanneld/need"
)

// units returns the files of all units.
func units(t *testing.T) (files []string) {
	t.Helper()
	for _, pattern := range []string{"systemd/*.service", "docker/*.service", "docker/*.path"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	if len(files) < 4 {
		t.Fatalf("units: %v, want all", files)
	}
	return files
}

// program is what a unit runs, and what no build machine has installed.
var program = regexp.MustCompile(`(?m)^(Exec\w+=)(/usr/bin/flanneld|/usr/lib/flannel/[a-z-]+(\.sh)?)`)

func TestEveryUnitIsCleanForSystemd(t *testing.T) {
	analyze := need.Program(t, "systemd-analyze")
	dir := t.TempDir()
	var copies []string
	for _, file := range units(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, strings.Replace(filepath.Base(file), "@.", "@blue.", 1))
		if err := os.WriteFile(to, program.ReplaceAll(text, []byte("${1}/bin/true")), 0o644); err != nil {
			t.Fatal(err)
		}
		copies = append(copies, to)
	}
	docker := filepath.Join(dir, "docker.service")
	if err := os.WriteFile(docker, []byte("[Service]\nType=notify\nExecStart=/bin/true\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"flannel", "flannel-json"} {
		text, err := os.ReadFile("docker/docker.service.d-" + name + ".conf")
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.ReplaceAll(program.ReplaceAll(text, []byte("${1}/bin/true")), []byte("=dockerd"), []byte("=/bin/true"))
		if err := os.MkdirAll(docker+".d", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(docker+".d", name+".conf"), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "flanneld.service.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range append(dropIns(), "sysconfig.conf") {
		text, err := os.ReadFile("systemd/" + name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "flanneld.service.d", name), program.ReplaceAll(text, []byte("${1}/bin/true")),
				0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(analyze, append([]string{"verify", "--man=no", docker}, copies...)...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, dir) || strings.Contains(line, "flannel") || strings.Contains(line, "docker") {
			t.Error(strings.TrimSpace(line))
		}
	}
	if err != nil {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

func TestEveryServiceIsLittleExposed(t *testing.T) {
	const most = 2.5 // of 10
	for _, file := range units(t) {
		if filepath.Ext(file) != ".service" {
			continue
		}
		if got, report := exposure(t, file); got > most {
			t.Errorf("%s: exposure %.1f, want at most %.1f\n%s", file, got, most, report)
		}
	}
}

var level = regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)

// exposure returns what systemd says about a file of a service, and why.
func exposure(t *testing.T, file string) (rating float64, report []byte) {
	t.Helper()
	out, err := exec.Command(need.Program(t, "systemd-analyze"), "security", "--offline=yes", "--no-pager",
		file).CombinedOutput()
	m := level.FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("%s: %v\n%s", file, err, out)
	}
	rating, err = strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return rating, out
}

// dropIns returns the drop-ins of backends.
func dropIns() []string {
	return []string{"extension.conf", "ipip.conf", "udp.conf", "udp-kernel.conf", "wireguard.conf"}
}

// A drop-in adds to the unit what its name says, and docs/systemd.md tells what that costs.
func TestADropInAddsLittleToTheExposure(t *testing.T) {
	page, err := os.ReadFile("../docs/systemd.md")
	if err != nil {
		t.Fatal(err)
	}
	before, _ := exposure(t, "systemd/flanneld.service")
	for _, name := range dropIns() {
		unit := filepath.Join(t.TempDir(), "flanneld.service")
		text := strings.Join(append(settings(t, "systemd/flanneld.service"), settings(t, "systemd/"+name)...), "\n")
		if err := os.WriteFile(unit, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		after, report := exposure(t, unit)
		want := "`" + name + "`"
		if after > before { // the line of the table that names the drop-in says it
			want += fmt.Sprintf(`[^\n]*\(exposure %.1f\)`, after)
		}
		if !regexp.MustCompile(want).Match(page) {
			t.Errorf("docs/systemd.md does not say %s", want)
		}
		if after < before || after > before+0.2 {
			t.Errorf("with %s the exposure is %.1f, and %.1f without\n%s", name, after, before, report)
		}
	}
}

// settings returns the lines of a unit that are no comments.
func settings(t *testing.T, file string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		if line := s.Text(); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines
}

// expand does to a command line what systemd does: ${NAME} is put in as it is, $NAME is split into words.
func expand(line string, env map[string]string) (args []string) {
	for word := range strings.FieldsSeq(line) {
		if name, ok := strings.CutPrefix(word, "$"); ok && !strings.HasPrefix(name, "{") {
			args = append(args, strings.Fields(env[name])...)
			continue
		}
		args = append(args, os.Expand(word, func(name string) string { return env[name] }))
	}
	return args
}

func TestSettingsOfAnRPMOfFlannelAreTakenOver(t *testing.T) {
	lines := settings(t, "systemd/sysconfig.conf")
	if !slices.Contains(lines, "EnvironmentFile=/etc/sysconfig/flanneld") || !slices.Contains(lines, "ExecStart=") {
		t.Fatalf("got %q, want the file to be read and the command line of the unit replaced", lines)
	}
	env := map[string]string{}
	for _, line := range lines {
		if rest, ok := strings.CutPrefix(line, "Environment="); ok {
			for pair := range strings.FieldsSeq(rest) {
				key, value, _ := strings.Cut(pair, "=")
				env[key] = value
			}
		}
	}
	command := strings.TrimPrefix(lines[len(lines)-1], "ExecStart=")
	for _, c := range []struct {
		name string
		file map[string]string
		want string
	}{
		{"an empty file", nil, "-etcd-endpoints=http://127.0.0.1:2379 -etcd-prefix=/coreos.com/network"},
		{"as the rpm brings it", map[string]string{"FLANNEL_ETCD_ENDPOINTS": "http://192.0.2.1:2379,http://192.0.2.2:2379",
			"FLANNEL_ETCD_PREFIX": "/atomic.io/network"},
			"-etcd-endpoints=http://192.0.2.1:2379,http://192.0.2.2:2379 -etcd-prefix=/atomic.io/network"},
		{"with options", map[string]string{"FLANNEL_OPTIONS": "-iface=eth1 --ip-masq"},
			"-etcd-endpoints=http://127.0.0.1:2379 -etcd-prefix=/coreos.com/network -iface=eth1 --ip-masq"},
	} {
		now := maps.Clone(env)
		maps.Copy(now, c.file)
		if got := strings.Join(expand(command, now), " "); got != "/usr/bin/flanneld "+c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestAnInstanceDiffersFromTheServiceInItsNetworkOnly(t *testing.T) {
	one, many := settings(t, "systemd/flanneld.service"), settings(t, "systemd/flanneld@.service")
	var extra []string
	for i := 0; i < len(many); i++ {
		switch j := i - len(extra); {
		case j < len(one) && one[j] == many[i]:
		case strings.HasPrefix(many[i], "Environment="):
			extra = append(extra, many[i])
		case j < len(one) && strings.HasPrefix(many[i], "Description=") && strings.HasPrefix(one[j], "Description="):
		case j < len(one) && many[i] == strings.Replace(one[j], "/flanneld.conf", "/%i.conf", 1):
		default:
			t.Fatalf("flanneld@.service has %q, unlike flanneld.service", many[i])
		}
	}
	if len(many)-len(extra) != len(one) || len(extra) != 1 {
		t.Errorf("%d and %d settings, %v added; want one added", len(one), len(many), extra)
	}
}

// The default of flannel begins with a port at which nothing listens on the hosts of today, so that any user can.
func TestTheUnitsNameThePortOfEtcd(t *testing.T) {
	for _, file := range []string{"systemd/flanneld.service", "systemd/flanneld@.service"} {
		lines := settings(t, file)
		at := slices.Index(lines, "Environment=FLANNELD_ETCD_ENDPOINTS=http://127.0.0.1:2379")
		after := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "EnvironmentFile=") })
		if at < 0 || after < at {
			t.Errorf("%s does not set the endpoint before it reads the administrator's file", file)
		}
	}
}

// Others that look after the network of a host must not look after our devices.
func TestNetworkServicesLeaveOurDevicesAlone(t *testing.T) {
	for file, want := range map[string][]string{
		"network/80-flannel.link":     {"[Match]", "OriginalName=flannel*", "MACAddressPolicy=none"},
		"network/10-flannel.network":  {"[Match]", "Name=flannel*", "Unmanaged=yes"},
		"network/networkmanager.conf": {"match-device=interface-name:flannel*", "managed=0"},
		"network/sysctl.conf":         {"net.ipv4.ip_forward = 1"},
	} {
		lines := settings(t, file)
		for _, w := range want {
			if !strings.Contains(strings.Join(lines, "\n")+"\n", w+"\n") {
				t.Errorf("%s has no line %q", file, w)
			}
		}
	}
}

func TestTheNeighbourTablesHoldTenThousandPeers(t *testing.T) {
	const peers = 10000
	limits := map[string]int{}
	for _, line := range settings(t, "network/sysctl.conf") {
		key, value, _ := strings.Cut(line, " = ")
		limits[key], _ = strconv.Atoi(value)
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		prefix := "net." + family + ".neigh.default.gc_thresh"
		if a, b, c := limits[prefix+"1"], limits[prefix+"2"], limits[prefix+"3"]; !(0 < a && a < b && b < c && b > peers) {
			t.Errorf("%s: %d, %d, %d; want them to rise, and the second above %d", family, a, b, c, peers)
		}
	}
}

// The documentation names what is installed; a file that is renamed must be renamed there too.
func TestTheDocumentsNameFilesThatExist(t *testing.T) {
	for file, names := range map[string][]string{
		"../docs/systemd.md": {"systemd/flanneld.service", "systemd/flanneld@.service", "network/80-flannel.link",
			"network/10-flannel.network"},
		"../docs/docker.md": {"docker/mk-docker-opts.sh", "docker/flannel-docker-restart.path"},
		"../docs/coreos.md": {"cloud/fcos/cluster.bu", "cloud/flatcar/node1.bu", "cloud/files/etcd.service",
			"cloud/files/docker-flannel.conf"},
		"../docs/kubernetes.md": {"kubernetes/etcd/flannel.yaml"},
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, name := range names {
			_, err := os.Stat(name)
			if base := strings.Replace(filepath.Base(name), "@.", "@NAME.", 1); err != nil ||
				!strings.Contains(string(text), base) {
				t.Errorf("%s names %s: %v, %v", file, base, strings.Contains(string(text), base), err)
			}
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)

func TestLinksInTheDocumentsLeadSomewhere(t *testing.T) {
	files, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, "../README.md", "../CONTRIBUTING.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), string(m[1]))); err != nil {
				t.Errorf("%s links to %s: %v", file, m[1], err)
			}
		}
	}
}
