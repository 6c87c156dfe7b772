{{- define "modelrollout.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for `-metrics` to follow within the 63 characters of a Service's name. */}}
{{- define "modelrollout.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Cluster-wide names carry the namespace: two releases of one name do not meet. */}}
{{- define "modelrollout.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "modelrollout.fullname" .) -}}
{{- end -}}

{{- define "modelrollout.leaseName" -}}
{{- printf "%s-operator" (include "modelrollout.fullname" .) -}}
{{- end -}}

{{/* As operator/modelrollout/selector.py reads it: a test holds the two together. */}}
{{- define "modelrollout.shardSelector" -}}
{{- $name := "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?" -}}
{{- $part := "[a-z0-9]([-a-z0-9]*[a-z0-9])?" -}}
{{- $key := printf "(%s(\\.%s)*/)?%s" $part $part $name -}}
{{- $equal := printf "%s\\s*(==?|!=)\\s*(%s)?" $key $name -}}
{{- $listed := printf "%s\\s+(in|notin)\\s*\\(\\s*%s(\\s*,\\s*%s)*\\s*\\)" $key $name $name -}}
{{- $one := printf "\\s*(!\\s*%s|%s|%s|%s)\\s*" $key $listed $equal $key -}}
{{- $selector := trim .Values.shardSelector -}}
{{- if not (regexMatch (printf "^(%s(,%s)*)?$" $one $one) $selector) -}}
{{- fail (printf "shardSelector %q is not a label selector: write it as tier=gold, tier!=gold, tier in (gold, silver), tier notin (gold), tier or !tier, or several of these with commas between them" $selector) -}}
{{- end -}}
{{- $selector -}}
{{- end -}}

{{- define "modelrollout.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "modelrollout.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "modelrollout.selectorLabels" -}}
app.kubernetes.io/name: {{ include "modelrollout.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "modelrollout.testLabels" -}}
app.kubernetes.io/name: {{ include "modelrollout.name" . }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "modelrollout.labels" -}}
{{ include "modelrollout.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "modelrollout.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "modelrollout.subjects" -}}
- kind: ServiceAccount
  name: {{ include "modelrollout.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}

{{/* What the operator calls: RBAC in operator/modelrollout/adapters/cluster.py, verb by verb. */}}
{{- define "modelrollout.rules" -}}
- apiGroups: [modelrollout.dev]
  resources: [modelrollouts]
  verbs: [get, list, watch, patch]
- apiGroups: [modelrollout.dev]
  resources: [modelrollouts/status]
  verbs: [update]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch{{ if .Values.shadow.enabled }}, create, patch, delete{{ end }}]
{{- if or .Values.shadow.enabled .Values.traces }}
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch{{ if .Values.shadow.enabled }}, delete{{ end }}]
{{- end }}
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [list]
- apiGroups: [apps]
  resources: [deployments/scale]
  verbs: [patch]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [list]
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
- apiGroups: [""]
  resources: [services]
  verbs: [get, create{{ if .Values.shadow.enabled }}, patch, delete{{ end }}]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list]
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways]
  verbs: [get]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gatewayclasses]
  verbs: [list]
- apiGroups: [gateway.envoyproxy.io]
  resources: [envoyextensionpolicies]
  verbs: [list, create, patch, delete]
- apiGroups: [gateway.envoyproxy.io]
  resources: [securitypolicies, backendtrafficpolicies]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- if .Values.jobChecks.enabled }}
- apiGroups: [batch]
  resources: [cronjobs]
  verbs: [get]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, create]
{{- end }}
{{- end -}}
