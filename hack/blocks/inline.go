package blocks

// where says where an inline command is run, and how, if it cannot be run as it stands.
type where struct {
	place Place
	run   string
}

// inline are the commands that stand in a sentence or a table. Those that a block has as well need no line here.
var inline = map[string]where{
	"flannelctl doctor --fix":                  {Host, ""},
	"flannelctl doctor -v":                     {Host, ""},
	"flannelctl leases history SUBNET":         {Host, "flannelctl leases history 10.5.200.0/24"},
	"flannelctl leases reserve ADDRESS SUBNET": {Host, "flannelctl leases reserve 192.0.2.78 10.5.201.0/24"},
	// its backend has no keys; lab runs it with one that has
	"flannelctl rekey": {Host, "! flannelctl rekey"},
	// The pod is of this host. The way to another host's is pinged by a test of flannelctl.
	"flannelctl ping HOST": {Host,
		`flannelctl ping "$POD" 2>&1 | grep -q "own subnet"`},
	"flannelctl ping ADDRESS-OF-THE-CONTAINER": {Host,
		`flannelctl ping "$POD" 2>&1 | grep -q "own subnet"`},
	"flannelctl network edit": {Host, "EDITOR=true flannelctl network edit"},
	"flannelctl --etcd-endpoints http://192.0.2.1:2379 network get": {Host, ""},
	"ip link del flannel0": {Host,
		"ip tuntap add dev flannel0 mode tun && ip link del flannel0"},
	"ip route":                              {Host, ""},
	"ip route get":                          {Host, "ip route get 192.0.2.1"},
	"ip route get ADDRESS-OF-THE-CONTAINER": {Host, `ip route get "$POD" | grep -q "dev cni0"`},
	"ip xfrm policy":                        {Host, ""},
	"mk-docker-opts.sh -6":                  {Host, ""},
	"mk-docker-opts.sh -i":                  {Host, ""},
	"mk-docker-opts.sh -k DOCKER_NETWORK_OPTIONS -d /run/flannel/docker": {Host, ""},
	"sysctl net.ipv4.ip_forward=1":                                       {Host, ""},

	"etcd grpc-proxy": {Etcd, forAWhile("etcd grpc-proxy start --endpoints=127.0.0.1:2379 --listen-addr=127.0.0.1:23790")},
	"etcdctl get /coreos.com/network/config --print-value-only": {Etcd, ""},
	"etcdctl make-mirror": {Etcd,
		forAWhile("etcdctl make-mirror --prefix /coreos.com/network/config --dest-prefix /elsewhere 127.0.0.1:2379")},
	"etcdctl snapshot save": {Etcd, "etcdctl snapshot save backup.snapshot"},

	"flannel-docker wait": {Machine, "/usr/lib/flannel/flannel-docker wait"},
	"/usr/lib/flannel/flannel-docker daemon-json -remove": {Machine, ""},
	"systemctl enable --now flanneld":                     {Machine, ""},
	"systemctl status":                                    {Machine, "systemctl status flanneld"},
	"systemctl status docker":                             {Machine, ""},
	"systemd-analyze security flanneld":                   {Machine, ""},
	"apt-get remove flanneld":                             {Machine, ""},
	"FLANNEL_CLEAN=yes apt-get remove flanneld":           {Machine, ""},
	"apt-get purge flanneld":                              {Machine, ""},
	"apt-get install --allow-downgrades": {Machine,
		"apt-get install --allow-downgrades ./flanneld_*.deb"},

	"make demo HOLD=1": {Source, "make -n demo HOLD=1"}, // waits for a key
	"make build":       {Source, ""},
	"go generate":      {Source, "go generate -n ./backend/udp/offload"},
	"make bench-scale SCALE=10000 SIMULATED=10000 SIMULATED_BACKEND=host-gw": {Source,
		"make -n bench-scale SCALE=10000 SIMULATED=10000 SIMULATED_BACKEND=host-gw"},
	"make release":               {Source, "make -n release"},
	"make help":                  {Source, ""},
	"make check":                 {Source, "make -n check"},
	"make test-all":              {Source, "make -n test-all"},
	"make test SLOW=30s":         {Source, "make -n test SLOW=30s"},
	"make lint":                  {Source, "make -n lint"},
	"make race":                  {Source, "make -n race"},
	"make race-daemon":           {Source, "make -n race-daemon"},
	"make fuzz":                  {Source, "make -n fuzz"},
	"make soak":                  {Source, "make -n soak"},
	"make soak-lab":              {Source, "make -n soak-lab"},
	"make bench":                 {Source, "make -n bench"},
	"make bench-scale":           {Source, "make -n bench-scale"},
	"make test-flannel":          {Source, "make -n test-flannel"},
	"make test-docker":           {Source, "make -n test-docker"},
	"make test-kubernetes":       {Source, "make -n test-kubernetes"},
	"make test-moves":            {Source, "make -n test-moves"},
	"make test-machines":         {Source, "make -n test-machines"},
	"make test-kernels":          {Source, "make -n test-kernels"},
	"make test-examples":         {Source, "make -n test-examples"},
	"make test":                  {Source, "make -n test"},
	"make cross":                 {Source, "make -n cross"},
	"go test ./backend/registry": {Source, "go test ./backend/registry"},
	"go test ./subnet/keeper -run TestNoSchedule -sim.seed N": {Source,
		"go test ./subnet/keeper -run TestNoSchedule -sim.seed 1"},

	"go test ./subnet/keeper -run TestNoOrder -steps.seed N": {Source,
		"go test ./subnet/keeper -run TestNoOrder -steps.seed 1"},

	"kubectl rollout restart": {Kubernetes, "kubectl -n kube-flannel rollout restart daemonset flannel"},

	"flannelctl token create --member": {Member, ""},
	"flannelctl token list":            {Member, ""}, "flannelctl hosts list": {Member, ""},
	"flannelctl token revoke ID":     {Member, `flannelctl token revoke "$(flannelctl token create | cut -d " " -f 3)"`},
	"flannelctl hosts remove HOST":   {Member, "! flannelctl hosts remove nobody"},
	"flannelctl hosts remove":        {Member, "! flannelctl hosts remove nobody"},
	"flannelctl members list":        {Member, ""},
	"flannelctl members remove HOST": {Member, "! flannelctl members remove nobody"},
	"flannelctl members remove USER": {Member, "! flannelctl members remove nobody"},
	"flannelctl hosts remove USER":   {Member, "! flannelctl hosts remove nobody"},
	"flannelctl members recover":     {Member, "! flannelctl members recover"}, // it has a majority
	"flannelctl members remove":      {Member, "! flannelctl members remove nobody"},
	"etcdctl --endpoints https://192.0.2.1:2379 --cacert /var/lib/flannel/store/ca.pem --cert " +
		"/var/lib/flannel/store/root.pem --key /var/lib/flannel/store/root.key": {Member, memberEtcdctl + "endpoint health"},
	"etcdctl auth disable": {Member, memberEtcdctl + "auth status"},

	"kubectl -n kube-flannel edit configmap kube-flannel-cfg": {Never, ""},

	"firewall-cmd --permanent --add-port=8472/udp": {Never, ""},
	"dnf remove flanneld":                          {Never, ""},
	"dnf downgrade":                                {Never, ""},
	"FLANNEL_CLEAN=yes rpm --erase flanneld":       {Never, ""},
}

// memberEtcdctl is etcd's client as the root of a secured embedded store.
const memberEtcdctl = "etcdctl --endpoints https://192.0.2.1:2379 --cacert /var/lib/flannel/store/ca.pem --cert " +
	"/var/lib/flannel/store/root.pem --key /var/lib/flannel/store/root.key "

// forAWhile runs what does not end by itself, and must still run when it is stopped.
func forAWhile(command string) string { return "timeout 3 " + command + " || [ $? = 124 ]" }

// instead are lines of blocks of the source tree that would run the test that runs them.
var instead = map[string]string{"make test": "make -n test"}

// exceptions are the commands of Never, with the reason, and what stands in for it.
var exceptions = map[string]string{
	"cp /etc/sysconfig/flanneld /root/flanneld.sysconfig\ndnf remove flannel\ndnf install ./flanneld-[0-9]*.rpm\n" +
		"cp /root/flanneld.sysconfig /etc/sysconfig/flanneld\n" +
		"install -D -m 644 /usr/share/flannel/systemd/sysconfig.conf " +
		"/etc/systemd/system/flanneld.service.d/sysconfig.conf\n" +
		"systemctl daemon-reload\nsystemctl enable --now flanneld": "no system of which dnf is the package manager is to " +
		"be had; a test of dist reads the drop-in as systemd does",
	"iptables -I DOCKER-USER -s 10.5.0.0/16 -j ACCEPT\niptables -I DOCKER-USER -d 10.5.0.0/16 -j ACCEPT": "needs " +
		"docker's chains; dist/machines runs it with the example of Compose",
	"docker compose up --detach\ndocker compose exec first flannelctl token create": "needs a registry; dist/machines " +
		"runs it with Debian's docker-compose",
	"docker compose up --detach\ndocker compose exec other flannelctl status": "as above",
	"ansible-playbook --inventory hosts.ini --extra-vars flanneld_package=$PWD/flanneld_1.0.0-1_amd64.deb site.yml": "" +
		"needs hosts; dist/machines runs it on machines",
	`flannelctl network migrate --to '{"Type": "wireguard"}'`: "moves the network that other blocks need; lab moves one " +
		"through all backends",
	"flannelctl network migrate --abort": "as above",
	"kubectl -n kube-flannel exec POD -c kube-flannel -- flannelctl network migrate --to '{\"Type\": \"wireguard\"}'": "" +
		"as above; a test of lab follows a file with the network configuration",
	"kubectl -n kube-flannel edit configmap kube-flannel-cfg": "opens an editor",
	"dnf install ./flanneld-[0-9]*.rpm": "no system of which dnf is the package manager is to be had; dist/machines " +
		"installs the same package with rpm, dist/release with dnf in an empty root",
	"dnf remove flanneld": "as above",
	"dnf downgrade":       "as above; dist/machines goes back to a former version with rpm",
	"restorecon -R /usr/bin/flanneld /usr/bin/flannelctl /usr/libexec/flannel /usr/lib/flannel /opt/cni/bin " +
		"/etc/flannel /var/lib/flannel /run/flannel": "no system with SELinux is to be had",
	"docker run --detach --name flanneld --network host --restart always --read-only --cap-drop ALL --cap-add NET_ADMIN " +
		"--cap-add NET_RAW \\\n  --security-opt no-new-privileges --volume /run/flannel:/run/flannel " +
		"--volume /var/lib/flannel:/var/lib/flannel \\\n  localhost/flanneld:VERSION " +
		"-etcd-endpoints=https://192.0.2.11:2379,https://192.0.2.12:2379 -iface=eth0 -ip-masq": "names a version; " +
		"dist/kubernetes runs the image with these capabilities by containerd",
	"FLANNEL_CLEAN=yes rpm --erase flanneld": "Debian's rpm does not know what Debian's dpkg has installed; " +
		"dist/machines runs it with the flags that it wants",
	"firewall-cmd --permanent --add-port=8472/udp": "writes to the configuration of the machine that runs the tests; " +
		"lab opens the port of a running firewalld",
	"helm install flannel dist/kubernetes/chart --namespace kube-flannel --create-namespace \\\n" +
		"  --set podCidr=10.244.0.0/16 --set flannel.image.repository=registry.example.com/flanneld\n" +
		"kubectl label namespace kube-flannel pod-security.kubernetes.io/enforce=privileged\n" +
		"kubectl --namespace kube-flannel rollout status daemonset kube-flannel-ds": "needs helm and a registry; " +
		"dist/cloud renders the chart with such values",
	"make release VERSION=v1.2.3 SIGN_KEY=release.asc URL=https://packages.example.com\n" +
		"gpg --verify build/release/SHA256SUMS.asc build/release/SHA256SUMS": "needs a key; " +
		"dist/release builds with one of a test, and verifies by gpgv",
	"curl -fsSo /usr/share/keyrings/flanneld.gpg https://packages.example.com/apt/flanneld.gpg\n" +
		"echo 'deb [signed-by=/usr/share/keyrings/flanneld.gpg] https://packages.example.com/apt ./' " +
		">/etc/apt/sources.list.d/flanneld.list\napt-get update\napt-get install flanneld": "needs a web server; " +
		"dist/release installs from the folder with the same line",
	"curl -fsSo /etc/yum.repos.d/flanneld.repo https://packages.example.com/yum/flanneld.repo\ndnf install flanneld": "" +
		"as above; dist/release installs from the folder with the same file",
	"docker load --input flanneld-*-docker-amd64.tar": "dist/machines loads it with docker 20",
	"skopeo copy oci-archive:flanneld-*-image.tar docker://registry.example.com/flanneld:latest": "needs a registry; " +
		"dist/release reads the image back",
}

// notCommands are texts that look like commands and are none.
var notCommands = []string{"flanneld is not running", "bridge cni0 still serves … 10.5.34.0/24",
	`bridge cni0 belongs to the network "pods"`,
	"ip flannel-ipv4", "ip route add", "ip route replace", "iptables -j MASQUERADE"}
