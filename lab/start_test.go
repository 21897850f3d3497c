package lab_test

import (
	"strings"

	"flanneld/lab"
)

// leftover is what a daemon may find when it starts. The words in capitals are those of placeholders.
type leftover struct {
	name     string
	backends string // that clean it up
	commands []string
}

var leftovers = []leftover{
	{"of peers that are gone", "vxlan", []string{
		"ip route add FREE via FIRST dev DEV onlink proto 70",
		"ip neigh add FIRST lladdr 02:00:00:00:00:77 dev DEV nud permanent",
		"bridge fdb add 02:00:00:00:00:77 dev DEV dst OTHER"}},
	{"of a daemon with another backend", "vxlan host-gw udp wireguard ipip",
		[]string{"ip route add FREE via OTHER dev eth0 proto 70"}},
	{"of flannel, without a protocol of its own", "vxlan", []string{"ip route add FREE via FIRST dev DEV onlink"}},
	{"of flannel, without a protocol of its own", "host-gw", []string{"ip route add FREE via OTHER dev eth0"}},
	{"of flannel, without a protocol of its own", "udp wireguard", []string{"ip route add FREE dev DEV"}},
	{"of flannel, without a protocol of its own", "ipip", []string{"ip route add FREE via OTHER dev DEV onlink"}},
	{"a device with another address", "ipip", []string{"ip link del DEV", "ip link add DEV type ipip local OTHER"}},
	{"a device with a remote end",
		"ipip", []string{"ip link del DEV", "ip link add DEV type ipip local OWN remote OTHER"}},
	{"a device with another VNI", "vxlan",
		[]string{"ip link del DEV", "ip link add DEV type vxlan id 7 dstport 8472 local OWN dev eth0"}},
	{"a device with another port",
		"vxlan", []string{"ip link del DEV", "ip link add DEV type vxlan id 1 dstport 4789 local OWN dev eth0"}},
	{"a device of another type", "vxlan udp wireguard ipip",
		[]string{"ip link del DEV", "ip link add DEV type bridge", "ip link set DEV up", "ip addr add ADDR dev DEV"}},
}

// bystanders are objects that look like ours and are others': STATIC is in the network, OUTSIDE is not.
var bystanders = []string{
	"ip route add STATIC via OTHER dev eth0 proto static",
	"ip route add NET via OTHER dev eth0 metric 7777 proto 70",
	"ip route add OUTSIDE via OTHER dev eth0 proto 70",
	"IP rule add from OUTSIDE lookup 99",
	"ip route add NET via OTHER dev eth0 table 99 proto 70",
}

// startCleansUp has a daemon start on what others have left, once for each kind of it.
func startCleansUp(s *site) {
	h := s.hosts[0]
	s.ok(h.Run("ip link add flannel.2 type vxlan id 2 dstport 8472 local " + underlayOf(h) + " dev eth0"))
	remove, lookAt := []string{"ip link del flannel.2"}, []string{"ip -br link show flannel.2", "ip addr show dev cni0"}
	s.eachFamily(func(family string, fill func(string) string) {
		theirs := strings.NewReplacer("OUTSIDE", "10.6.0.0/24", "STATIC", "10.5.255.0/24")
		if family == "IPv6" {
			theirs = strings.NewReplacer("OUTSIDE", "fd00:6::/64", "STATIC", "fd00:5:0:ff::/64")
		}
		for _, command := range bystanders {
			command = fill(theirs.Replace(command))
			s.ok(h.Run(command))
			remove = append(remove, strings.Replace(command, " add ", " del ", 1))
		}
		lookAt = append(lookAt, fill("IP route show dev eth0"), fill("IP route show table 99"), fill("IP rule show"))
	})
	others := func() string {
		var out strings.Builder
		for _, command := range lookAt {
			out.WriteString(must[string](s.t)(h.Output(command)))
		}
		return out.String()
	}
	before, ours := others(), s.look(h)
	s.eachFamily(func(family string, fill func(string) string) {
		for _, tt := range leftovers {
			if strings.Contains(tt.backends, s.backend) {
				s.sub(family+", "+tt.name, func(s *site) { s.startOn(h, tt, fill, others, before, ours) })
			}
		}
	})
	s.ok(h.Run(remove...))
}

func (s *site) startOn(h *lab.Host, tt leftover, fill func(string) string, others func() string, before, ours string) {
	s.daemons[0].Kill()
	h.ForgetFiles() // with them the udp backend's device would live on
	for _, command := range tt.commands {
		s.ok(h.Run(fill(command)))
	}
	s.daemons[0] = s.flanneld(h, s.store)
	s.connected()
	if got := s.look(h); got != ours {
		s.t.Errorf("kernel:\n%s\nbefore:\n%s", got, ours)
	}
	if got := others(); got != before {
		s.t.Errorf("others' objects:\n%s\nbefore:\n%s", got, before)
	}
}
