{{/* flannel.network is the network configuration (net-conf.json). Only what is set is written. */}}
{{- define "flannel.network" -}}
{{- $v := .Values.flannel -}}
{{- $backend := dict "Type" $v.backend -}}
{{- $settings := dict
  "vxlan" (dict "backendPort" "Port" "vni" "VNI" "GBP" "GBP" "directRouting" "DirectRouting" "mtu" "MTU")
  "wireguard" (dict "backendPort" "ListenPort" "backendPortv6" "ListenPortV6" "psk" "PSK" "mtu" "MTU" "tunnelMode" "Mode" "keepaliveInterval" "PersistentKeepaliveInterval")
  "udp" (dict "backendPort" "Port")
  "ipip" (dict "directRouting" "DirectRouting") -}}
{{- range $value, $option := get $settings $v.backend | default dict -}}
  {{- $set := get $v $value -}}
  {{- if $set -}}{{- $_ := set $backend $option $set -}}{{- end -}}
{{- end -}}
{{- $config := dict "EnableNFTables" $v.enableNFTables "Backend" $backend -}}
{{- if .Values.podCidr -}}{{- $_ := set $config "Network" .Values.podCidr -}}{{- else -}}{{- $_ := set $config "EnableIPv4" false -}}{{- end -}}
{{- if .Values.podCidrv6 -}}{{- $_ := set $config "IPv6Network" .Values.podCidrv6 -}}{{- $_ := set $config "EnableIPv6" true -}}{{- end -}}
{{- if not (or .Values.podCidr .Values.podCidrv6) -}}{{- fail "set podCidr or podCidrv6: the network of the pods, equal to --cluster-cidr of kube-controller-manager" -}}{{- end -}}
{{- toPrettyJson $config -}}
{{- end -}}
