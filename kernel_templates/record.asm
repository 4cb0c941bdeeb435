{% from "macros.asm" import crc_byte %}
; Report lines: text that counts into the checksums of the line and of the whole log.

; Prints one character and counts it. in: AL; clobbers: nothing
put_char:
    call screen_put
    ; the summary is for the screen alone
    cmp byte ptr [screen_only], 0
    jne .return
    push ecx
    push edx
    mov edx, dword ptr [line_crc_register]
{{ crc_byte() }}
    mov dword ptr [line_crc_register], edx
    mov edx, dword ptr [log_crc_register]
{{ crc_byte() }}
    mov dword ptr [log_crc_register], edx
    pop edx
    pop ecx
    jmp serial_put
.return:
    ret

; Ends a line: LF counts, CR does not. clobbers: EAX
put_newline:
    cmp byte ptr [screen_only], 0
    jne .feed
    mov al, 13
    call serial_put
.feed:
    mov al, 10
    call put_char
    jmp screen_poll

; Prints zero-terminated text. in: ESI; out: ESI after it; clobbers: EAX
put_text:
    lodsb
    test al, al
    jz .done
    call put_char
    jmp put_text
.done:
    ret

; Prints EAX as eight hex digits. clobbers: EAX, ECX, EDX
put_hex:
    mov edx, eax
    mov ecx, 8
.digit:
    rol edx, 4
    mov eax, edx
    and eax, 15
    mov al, byte ptr [hex_digits + eax]
    call put_char
    dec ecx
    jnz .digit
    ret

; Prints EDX:EAX as a decimal number. clobbers: EAX, ECX, EDX
put_decimal:
    push ebx
    push esi
    push edi
    mov esi, eax
    mov edi, edx
    mov ebx, esp
    sub esp, 24
    dec ebx
    mov byte ptr [ebx], 0
.digit:
    ; (EDI:ESI) / 10 in two steps, the remainder of the upper half carried into the lower
    mov ecx, 10
    xor edx, edx
    mov eax, edi
    div ecx
    mov edi, eax
    mov eax, esi
    div ecx
    mov esi, eax
    add dl, '0'
    dec ebx
    mov byte ptr [ebx], dl
    or eax, edi
    jnz .digit
    mov esi, ebx
    call put_text
    add esp, 24
    pop edi
    pop esi
    pop ebx
    ret

; Prints text with conversions (see protocol.py). in: ESI format, EDI the first argument; out: EDI after the last
; clobbers: EAX, ECX, EDX, ESI
put_format:
    lodsb
    test al, al
    jz .done
    cmp al, '%'
    je .convert
    call put_char
    jmp put_format
.convert:
    lodsb
    mov ecx, dword ptr [edi]
    add edi, 4
    cmp al, 'x'
    je .hex
    cmp al, 's'
    je .text
    cmp al, 'q'
    je .quad
    xor edx, edx
    mov eax, ecx
    call put_decimal
    jmp put_format
.quad:
    mov eax, dword ptr [ecx]
    mov edx, dword ptr [ecx + 4]
    call put_decimal
    jmp put_format
.hex:
    mov eax, ecx
    call put_hex
    jmp put_format
.text:
    push esi
    mov esi, ecx
    call put_text
    pop esi
    jmp put_format
.done:
    ret

; Prints one native line: number, format, checksum. On the stack: the format, then its arguments.
; clobbers: EAX, ECX, EDX
record:
    push esi
    push edi
    push ebx
    mov dword ptr [line_crc_register], 0xFFFFFFFF
    cmp dword ptr [results + Results.records], 0
    jne .numbered
    mov dword ptr [log_crc_register], 0xFFFFFFFF
.numbered:
    ; the log's checksum as it stands before this line, for the closing line
    mov esi, text_prefix
    call put_text
    mov eax, dword ptr [results + Results.records]
    xor edx, edx
    call put_decimal
    inc dword ptr [results + Results.records]
    mov al, ' '
    call put_char
    mov esi, dword ptr [esp + 16]
    lea edi, [esp + 20]
    call put_format
    mov ebx, dword ptr [line_crc_register]
    not ebx
    mov esi, text_crc
    call put_text
    mov eax, ebx
    call put_hex
    call put_newline
    mov eax, dword ptr [log_crc_register]
    not eax
    mov dword ptr [log_crc], eax
    pop ebx
    pop edi
    pop esi
    ret

; A sentence for people, which counts into the log's checksum. in: ESI its format; on the stack: its arguments
; clobbers: EAX, ECX, EDX, ESI
put_sentence:
    push edi
    lea edi, [esp + 8]
    call put_format
    call put_newline
    call remember_log_crc
    pop edi
    ret

; The table for people, with the original program's header and columns.
; clobbers: EAX, ECX, EDX, ESI
put_table_header:
    mov esi, text_table_header
    call put_text
    call put_newline
    jmp remember_log_crc

; One row. in: the CPU table's counters; clobbers: EAX, ECX, EDX, ESI, EDI
put_table_row:
    push ebx
    mov esi, text_counts
    call put_text
    mov eax, dword ptr [results + Results.cpu + Cpu.puts]
    mov edx, dword ptr [results + Results.cpu + Cpu.puts + 4]
    call put_decimal
    mov al, 9
    call put_char
    mov eax, dword ptr [results + Results.cpu + Cpu.SIZE + Cpu.takes]
    mov edx, dword ptr [results + Results.cpu + Cpu.SIZE + Cpu.takes + 4]
    mov esi, eax
    mov edi, edx
    call put_decimal
    mov al, 9
    call put_char
    ; count2 is the sum over all consumers but the first
    xor eax, eax
    xor edx, edx
    mov ebx, results + Results.cpu + 2 * Cpu.SIZE
    mov ecx, CPUS_NEEDED - 2
.sum:
    add eax, dword ptr [ebx + Cpu.takes]
    adc edx, dword ptr [ebx + Cpu.takes + 4]
    add ebx, Cpu.SIZE
    dec ecx
    jnz .sum
    add esi, eax
    adc edi, edx
    call put_decimal
    mov al, 9
    call put_char
    mov eax, dword ptr [results + Results.cpu + Cpu.puts]
    mov edx, dword ptr [results + Results.cpu + Cpu.puts + 4]
    sub eax, esi
    sbb edx, edi
    jns .positive
    push eax
    mov al, '-'
    call put_char
    pop eax
    neg eax
    adc edx, 0
    neg edx
.positive:
    call put_decimal
    call put_newline
    pop ebx

remember_log_crc:
    mov eax, dword ptr [log_crc_register]
    not eax
    mov dword ptr [log_crc], eax
    ret
