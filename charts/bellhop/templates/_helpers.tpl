{{/* The first part of all names: the release's name, with `bellhop` in it. */}}
{{- define "bellhop.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains "bellhop" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-bellhop" (.Release.Name | trunc 32 | trimSuffix "-") -}}
{{- end -}}
{{- end }}

{{- define "bellhop.operator" -}}
{{ include "bellhop.fullname" . }}-operator
{{- end }}

{{/* Objects without a namespace: two releases that work in namespaces of their own do not share them. */}}
{{- define "bellhop.clusterwide" -}}
{{- include "bellhop.operator" . }}
{{- if .Values.watchNamespaces }}-{{ .Release.Namespace }}{{ end }}
{{- end }}

{{/* What selects the operator's pods. Usage: include "bellhop.selector" (list . "operator") */}}
{{- define "bellhop.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: bellhop
app.kubernetes.io/component: {{ index . 1 }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- end }}

{{/* Labels of every object. Usage: include "bellhop.labels" (list . "operator") */}}
{{- define "bellhop.labels" -}}
{{- $root := index . 0 -}}
{{ include "bellhop.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The annotations of every object, with more, as a part of its metadata; nothing if there are none.
     Usage: include "bellhop.annotations" (list . (dict …)) */}}
{{- define "bellhop.annotations" -}}
{{- $root := index . 0 -}}
{{- with merge (dict) (index . 1) $root.Values.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end }}

{{- define "bellhop.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "bellhop.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "bellhop.operator" .) }}
{{- else -}}
{{ required "serviceAccount.name: write the name of your service account, or set serviceAccount.create: true" .Values.serviceAccount.name }}
{{- end -}}
{{- end }}

{{/* What the restricted Pod Security Standard asks of a pod, and of a container. */}}
{{- define "bellhop.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "bellhop.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Where the pods of this chart may run. */}}
{{- define "bellhop.placement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* The same for a pod of a hook, with the part of the affinity that is about nodes. What keeps operators
     apart is theirs alone: with one on each node there would be no place for this pod. */}}
{{- define "bellhop.hookPlacement" -}}
{{ include "bellhop.placement" . }}
{{- with .Values.affinity.nodeAffinity }}
affinity:
  nodeAffinity:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end }}
