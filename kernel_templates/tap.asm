; The Test Anything Protocol, version 14, beside the native lines: for harnesses that know nothing of kgen. What it says
; is the guest's own opinion; the verdict is made from the native lines and from memory.

put_tap_plan:
    mov esi, text_tap_version
    call put_text
    call put_newline
    mov esi, text_tap_plan
    call put_text
    call put_newline
    jmp remember_log_crc

; One case's line: violated or not. in: EBX phase, EBP plan row; clobbers: EAX, ECX, EDX, ESI, EDI
put_tap_line:
    call all_violations
    or eax, edx
    mov esi, text_tap_ok
    jz .said
    mov esi, text_tap_not_ok
.said:
    call put_text
    mov eax, dword ptr [ebp + Plan.case]
    inc eax
    xor edx, edx
    call put_decimal
    mov esi, text_tap_dash
    call put_text
    mov esi, dword ptr [ebp + Plan.case]
    mov esi, dword ptr [case_names + 4 * esi]
    call put_text
    mov eax, dword ptr [ebx + Phase.status]
    cmp eax, PhaseStatus.NO_STORAGE
    jb .end
    cmp eax, PhaseStatus.LIMIT
    je .end
    mov esi, text_tap_skip
    call put_text
.end:
    call put_newline
    jmp remember_log_crc
