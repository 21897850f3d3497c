//go:build machines

package machines_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"flanneld/dist/machines"
	"flanneld/ip/iptest"
	"flanneld/lab"
	"flanneld/need"
)

// previous and present are the versions of the packages of this test. The previous ones are built from a former commit,
// by what built them then.
const previous, present = "v0.1.0", "v0.2.0"

// manager is what a machine installs packages with.
type manager struct{ install, upgrade, downgrade string }

// managers has one for each machine: apt for the first, rpm for the second, whose system is Debian's all the same.
var managers = []manager{
	{
		install: "apt-get install -q -y --no-install-recommends", // the configuration is that of the package
		upgrade: "apt-get install -q -y --no-install-recommends -o Dpkg::Options::=--force-confold",
		downgrade: "apt-get install -q -y --no-install-recommends -o Dpkg::Options::=--force-confold " +
			"--allow-downgrades",
	},
	{
		install:   "rpm --force-debian --nodeps --nosignature --install",
		upgrade:   "rpm --force-debian --nodeps --nosignature --upgrade",
		downgrade: "rpm --force-debian --nodeps --nosignature --upgrade --oldpackage",
	},
}

func TestAnUpgradeFromAFormerVersionAndBackLosesNothing(t *testing.T) {
	need.Program(t, "debootstrap", "systemd-nspawn", "git")
	files := withEtcd(t, twoVersions(t))
	s := newStory(t)
	s.furnish(t, files, len(managers))
	s.each(t, func(m *machines.Machine) error {
		if err := m.Start(s.ctx); err != nil {
			return err
		}
		_, err := m.Run(s.ctx, "sh", "-ec", "systemctl disable --now docker.socket docker.service; nft flush ruleset")
		return err
	})
	// What our scripts know Debian by is put aside where rpm is used.
	s.sh(t, s.Machines[1], `mv "$(command -v deb-systemd-helper)" /srv; rpm --initdb`)
	s.packages(t, previous, func(m manager) string { return m.install }, s.Machines...)
	for _, c := range carriers {
		t.Run(c.backend, func(t *testing.T) {
			s.carries(t, c)
			turns := [][]*machines.Machine{s.Machines}
			if c.gap > 0 { // host after host, as docs/operations.md says
				turns = [][]*machines.Machine{s.Machines[:1], s.Machines[1:]}
			}
			for _, some := range turns {
				s.replaced(t, replacement{"an upgrade", present, func(m manager) string { return m.upgrade }, some, c.gap})
			}
			for _, some := range turns {
				s.replaced(t, replacement{"a downgrade", previous, func(m manager) string { return m.downgrade }, some, c.gap})
			}
		})
	}
	t.Run("a service that was stopped stays stopped", func(t *testing.T) {
		for _, m := range s.Machines {
			s.sh(t, m, "systemctl stop flanneld")
		}
		s.packages(t, present, func(m manager) string { return m.upgrade }, s.Machines...)
		for _, m := range s.Machines {
			if state := s.property(m, "flanneld.service", "ActiveState"); state != "inactive" {
				t.Errorf("%s: after the upgrade the service is %s, want it inactive as before", m.Name, state)
			}
		}
	})
}

// twoVersions builds the packages of both, and the archive that is unpacked with etcd.
func twoVersions(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	former := filepath.Join(dir, "former")
	if err := lab.CheckOut(t.Context(), "../..", lab.FormerCommit, former); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for version, root := range map[string]string{previous: former, present: "../.."} {
		out := filepath.Join(dir, version)
		must(t, filepath.Join(root, "dist/release"), "go", "run", ".", "-o", out, "-arch", runtime.GOARCH, "-version",
			version, "-kinds", "deb,rpm,archive")
		for _, pattern := range []string{"*.deb", "*.rpm"} {
			packages, _ := filepath.Glob(filepath.Join(out, pattern)) // the pattern is valid
			for _, p := range packages {
				files["/srv/"+version+"/"+filepath.Base(p)] = p
			}
		}
	}
	files["/opt/flanneld.tar.gz"] = filepath.Join(dir, present, "flanneld-0.2.0-linux-"+runtime.GOARCH+".tar.gz")
	return files
}

// packages installs a version of all packages on some machines at once.
func (s *story) packages(t *testing.T, version string, command func(manager) string, on ...*machines.Machine) {
	t.Helper()
	format := map[*machines.Machine]string{s.Machines[0]: "deb", s.Machines[1]: "rpm"}
	with := map[*machines.Machine]manager{s.Machines[0]: managers[0], s.Machines[1]: managers[1]}
	s.each(t, func(m *machines.Machine) error {
		if !slices.Contains(on, m) {
			return nil
		}
		_, err := m.Run(s.ctx, "sh", "-ec", command(with[m])+" /srv/"+version+"/*."+format[m])
		return err
	})
}

// replacement is another version that takes the place of the one that runs on some machines.
type replacement struct {
	what, version string
	command       func(manager) string
	on            []*machines.Machine
	gap           time.Duration // for which the traffic may be away; 0: nothing may be lost
}

// replaced puts another version in the place of the one that runs, while each machine pings the other.
func (s *story) replaced(t *testing.T, r replacement) {
	t.Helper()
	before := map[*machines.Machine]string{}
	for _, m := range s.Machines {
		before[m] = s.sh(t, m, kept)
	}
	stop := s.traffic(t)
	s.packages(t, r.version, r.command, r.on...)
	for _, m := range r.on {
		if err := s.runs(m, r.version); err != nil {
			t.Fatal(err)
		}
	}
	stop(r.what, r.gap)
	for _, m := range s.Machines {
		if after := s.sh(t, m, kept); after != before[m] {
			t.Errorf("%s: after %s the host has\n%s\nwant as before\n%s", m.Name, r.what, after, before[m])
		}
	}
}

// kept prints what another version must not change: configuration, subnet, and the identity of the host.
const kept = `cat /etc/flannel/flanneld.conf /run/flannel/subnet.env
	flannelctl status --json | grep -E '"(identity|devices|backend)":'`

// runs waits until the service runs the program of a version, and says that it is ready.
func (s *story) runs(m *machines.Machine, version string) error {
	return machines.Await(s.ctx, 60*time.Second, func() error {
		out, err := m.Run(s.ctx, "sh", "-ec", `readlink /proc/$(systemctl show --property=MainPID --value flanneld)/exe
			flannelctl status --json | grep '"version":'`)
		if err == nil && (!strings.HasPrefix(out, "/usr/bin/flanneld\n") || !strings.Contains(out, `"`+version+`"`)) {
			err = fmt.Errorf("%s: runs %q, want %s", m.Name, out, version)
		}
		return errors.Join(err, s.settled(m, "flanneld.service"))
	})
}

// traffic has the machines ping one another from the addresses of their subnets, a hundred times a second, until it is
// stopped. Not one answer may be missing, but for those that may be on their way when it is; or, if there may be a gap,
// no answer may come later than that after the one before.
func (s *story) traffic(t *testing.T) (stop func(what string, gap time.Duration)) {
	t.Helper()
	const script, underWay = `echo $$ >/run/ping.pid; exec ping -D -i 0.01 -I %s %s`, 50
	var addresses []string
	for _, m := range s.Machines {
		addresses = append(addresses, s.onLoopback(t, m))
	}
	var results []chan string
	for i, m := range s.Machines {
		done := make(chan string, 1)
		go func() {
			out, _ := m.Run(s.ctx, "sh", "-c", fmt.Sprintf(script, addresses[i], addresses[1-i])) // lost packets are counted
			done <- out
		}()
		results = append(results, done)
	}
	return func(what string, gap time.Duration) {
		t.Helper()
		if err := s.answered(addresses); err != nil {
			t.Error(err)
		}
		for i, m := range s.Machines {
			s.sh(t, m, "kill -INT $(cat /run/ping.pid)")
			out := <-results[i]
			sent, missing := unanswered(out)
			missing = slices.DeleteFunc(missing, func(n int) bool { return n > sent-underWay })
			longest := longestGap(out)
			t.Logf("%s: %d pings during %s, %d lost, at most %s without an answer", m.Name, sent, what, len(missing),
				longest.Round(time.Millisecond))
			if gap == 0 && len(missing) > 0 || sent < 2*underWay {
				t.Errorf("%s: no answer to %v\n%.500s", m.Name, missing, out)
			}
			if gap > 0 && longest > gap {
				s.inTime(t, m, longest, gap)
			}
		}
	}
}

// inTime gives a machine that does other work as well more time, by as much as it is slower.
func (s *story) inTime(t *testing.T, m *machines.Machine, took, most time.Duration) {
	t.Helper()
	times := iptest.Slower(filepath.Join(m.Root(), "usr/bin/flanneld"), "-version")
	if float64(took) > times*float64(most) {
		t.Errorf("%s: traffic was away for %s, want at most %s; the host is %.1f times slower than an idle one", m.Name, took,
			most, times)
	}
}

// longestGap returns the longest time between two answers.
func longestGap(out string) (gap time.Duration) {
	last := 0.0
	for _, m := range arrival.FindAllStringSubmatch(out, -1) {
		at, _ := strconv.ParseFloat(m[1], 64) // digits
		if last > 0 {
			gap = max(gap, time.Duration((at-last)*float64(time.Second)))
		}
		last = at
	}
	return gap
}

var (
	arrival     = regexp.MustCompile(`\[([0-9.]+)\] \d+ bytes from .* icmp_seq=`)
	answer      = regexp.MustCompile(`bytes from .* icmp_seq=(\d+) `)
	transmitted = regexp.MustCompile(`(\d+) packets transmitted`)
)

// unanswered returns how many pings were sent, and the numbers of those that have no answer.
func unanswered(out string) (sent int, missing []int) {
	answered := map[int]bool{}
	for _, m := range answer.FindAllStringSubmatch(out, -1) {
		n, _ := strconv.Atoi(m[1]) // digits
		answered[n] = true
	}
	if m := transmitted.FindStringSubmatch(out); m != nil {
		sent, _ = strconv.Atoi(m[1])
	}
	for n := 1; n <= sent; n++ {
		if !answered[n] {
			missing = append(missing, n)
		}
	}
	return sent, missing
}
